/**
 * Who may read a volume. Without a group everybody may, since the kubelet's folder around it is open
 * to root alone and each container sees its own volumes only.
 */
export interface Access {
  /** The owning group of all that is in the volume; undefined: root's. */
  readonly group: number | undefined;
  readonly folderMode: number;
  readonly fileMode: number;
}

/** The group is the Pod's `fsGroup`, which the kubelet gives as `volume_mount_group`. */
export const accessFor = (group: number | undefined): Access =>
  group === undefined
    ? { group, folderMode: 0o755, fileMode: 0o444 }
    : { group, folderMode: 0o750, fileMode: 0o440 };
