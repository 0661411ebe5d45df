import { mkdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { NodePublishVolumeRequest } from "../../src/csi/generated/csi/v1/NodePublishVolumeRequest.ts";
import { unless } from "../../src/error-code.ts";
import { type Driver, mountIdsAt } from "./csi-driver.ts";

/**
 * What a kubelet does with one Pod's inline volume, and what it remembers of it: the calls and the files of Kubernetes
 * 1.35.4, from SetUpAt, TearDownAt and removeMountDir in pkg/volume/csi/csi_mounter.go, NewUnmounter in csi_plugin.go,
 * markVolumeErrorState in pkg/volume/util/operationexecutor/operation_generator.go, and
 * pkg/kubelet/volumemanager/reconciler/reconstruct.go.
 */
export interface Kubelet {
  readonly targetPath: string;
  /** Publishes the volume, the first time or again. @returns the code of the error, or `OK` */
  setUp(request: NodePublishVolumeRequest): Promise<string>;
  /**
   * The Pod is deleted: unpublishes what may be mounted.
   * @throws Error where the kubelet would try again and again, and the Pod stays in Terminating
   */
  deletePod(): Promise<void>;
  /** Ends and begins again: what is known of the volume comes from the disk. */
  restart(): Promise<void>;
}

/** `isFinalError` in pkg/volume/csi/csi_client.go. */
const notFinal: readonly string[] = [
  "CANCELLED",
  "DEADLINE_EXCEEDED",
  "UNAVAILABLE",
  "RESOURCE_EXHAUSTED",
  "ABORTED",
];

/** @param folder where the Pod's volumes are */
export function kubeletOf(driver: Driver, folder: string): Kubelet {
  const volumeFolder = join(folder, "connectors");
  const targetPath = join(volumeFolder, "mount");
  const dataFile = join(volumeFolder, "vol_data.json");
  let state: "unmounted" | "uncertain" | "mounted" = "unmounted";
  let isReconstructed = false;

  const removeMountDir = async (): Promise<void> => {
    if ((await mountIdsAt(targetPath)).length > 0) return;
    const gone = unless(undefined, "ENOENT");
    // os.Remove() of Go takes files, too.
    await rmdir(targetPath).catch(unless(undefined, "ENOENT", "ENOTDIR"));
    await rm(targetPath, { force: true });
    await rm(dataFile, { force: true });
    await rmdir(volumeFolder).catch(gone);
  };

  return {
    targetPath,
    async setUp(request) {
      await mkdir(dirname(targetPath), { recursive: true, mode: 0o750 });
      await writeFile(dataFile, JSON.stringify({ volumeHandle: request.volumeId }));
      const code = await driver.publish(request).then(
        () => "OK",
        async (error) => (await driver.failure(Promise.reject(error))).code,
      );
      if (code === "OK") {
        state = "mounted";
        isReconstructed = false;
      } else if (notFinal.includes(code)) {
        if (state === "unmounted") state = "uncertain";
      } else {
        await removeMountDir();
        if (state === "uncertain" && !isReconstructed) state = "unmounted";
      }
      return code;
    },
    async deletePod() {
      if (state === "unmounted") return;
      const { volumeHandle } = JSON.parse(await readFile(dataFile, "utf8"));
      await driver.unpublish(targetPath, volumeHandle);
      await removeMountDir();
      state = "unmounted";
    },
    async restart() {
      const isKnown = await readFile(dataFile).then(
        () => true,
        () => false,
      );
      state = isKnown ? "uncertain" : "unmounted";
      isReconstructed = isKnown;
    },
  };
}
