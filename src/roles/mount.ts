import { realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { MountSettings, UnmountSettings } from "../config/volume-commands.ts";
import { publishVolume, unpublishVolume } from "../csi/client.ts";
import { errorCode } from "../error-code.ts";
import { volumeIdOf } from "../standalone/volume-records.ts";

/**
 * Mounts a volume through the standalone process's CSI socket, as a kubelet does.
 * @returns what to tell the person
 * @throws Error with the driver's message
 */
export async function mount(settings: MountSettings): Promise<string> {
  const targetPath = await resolveTarget(settings.target);
  await publishVolume(settings.socket, {
    volumeId: volumeIdOf(targetPath),
    targetPath,
    namespace: settings.namespace,
    attributes: settings.attributes,
    mountGroup: settings.group,
  });
  return `mounted ${targetPath}\n`;
}

/**
 * Unmounts what `mount` has mounted. From then on the volume's token is refused. A target that is not mounted is no
 * error.
 * @returns what to tell the person
 * @throws Error with the driver's message
 */
export async function unmount(settings: UnmountSettings): Promise<string> {
  // A job's folder may be gone already, and its volume has to be forgotten all the same.
  const targetPath = await resolveTarget(settings.target).catch(() => settings.target);
  await unpublishVolume(settings.socket, { volumeId: volumeIdOf(targetPath), targetPath });
  return `unmounted ${targetPath}\n`;
}

/** The target without symbolic links in its parents, since the id of a volume depends on its path. */
async function resolveTarget(target: string): Promise<string> {
  const parent = await realpath(dirname(target)).catch((error: unknown) => {
    throw new Error(
      `${dirname(target)} can't be accessed (${String(errorCode(error))}): create that folder first`,
    );
  });
  return join(parent, basename(target));
}
