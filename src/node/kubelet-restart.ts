/** Restarts a node's kubelet, which reads its configuration of credential providers once: at most once for each change. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseJson, property } from "../connector/document.ts";
import { providerName } from "./credential-provider.ts";
import type { HostProcess } from "./kubelet-process.ts";
import { type NodeFiles, readNodeFile, removeNodeFile, writeNodeFile } from "./node-file.ts";

/** What a restart asks of its surroundings. */
export interface KubeletRestartOptions {
  readonly files: NodeFiles;
  /** The folder of the plug-in, in which the record of restarts is kept. */
  readonly folder: string;
  /** Finds the process in which the kubelet runs; undefined where there is none at the moment. */
  readonly findKubelet: () => Promise<HostProcess | undefined>;
  /** Asks a process to end. What started it starts it again. */
  readonly endProcess: (pid: number) => void;
  /** When the kubelet has last told the API server that the node is ready, in milliseconds since 1970, to the second. */
  readonly lastReadyAt: () => Promise<number>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** How long it may take until it is healthy. */
  readonly healthyWithinMs: number;
}

/** What is known of the last change. */
interface RestartRecord {
  /** The digest of the configuration. */
  readonly change: string;
  readonly state: "restarting" | "done" | "failed";
  /** When the kubelet was started that does not know it yet. */
  readonly startedAt: number;
}

/** The name has a dot before it, so that nobody takes it for a plug-in. */
const recordPath = (folder: string): string => join(folder, `.${providerName}.restart`);

/** Identifies a configuration. */
export const changeOf = (content: string): string =>
  createHash("sha256").update(content).digest("hex");

/** What became of a change before. @returns undefined where nothing is known of it */
export async function restartState(
  { files, folder }: Pick<KubeletRestartOptions, "files" | "folder">,
  change: string,
): Promise<RestartRecord["state"] | undefined> {
  const record = await readRecord(files, folder);
  return record?.change === change ? record.state : undefined;
}

/**
 * Restarts the kubelet for a change of its configuration, which is written already, and waits until it is healthy. One that
 * was restarted for it before is not restarted again.
 * @returns whether it is healthy
 */
export async function restartKubelet(
  change: string,
  options: KubeletRestartOptions,
): Promise<boolean> {
  const { files, folder, now, healthyWithinMs } = options;
  const known = await readRecord(files, folder);
  const before = await options.findKubelet();
  const isUnderWay = known?.change === change && known.state === "restarting";
  const startedAt = isUnderWay ? known.startedAt : (before?.startedAt ?? 0);
  const readyBefore = isUnderWay ? 0 : await options.lastReadyAt();
  await writeRecord(files, folder, { change, state: "restarting", startedAt });
  const begin = now();
  if (before !== undefined && before.startedAt === startedAt) options.endProcess(before.pid);
  while (now() - begin < healthyWithinMs) {
    if (await isReadySince(startedAt, readyBefore, options)) {
      await writeRecord(files, folder, { change, state: "done", startedAt });
      return true;
    }
    await sleep(Math.min(500, healthyWithinMs / 10));
  }
  return false;
}

/** Whether another kubelet than the one of before runs, and has told the API server that its node is ready. */
async function isReadySince(
  startedAt: number,
  readyBefore: number,
  { findKubelet, lastReadyAt }: KubeletRestartOptions,
): Promise<boolean> {
  const kubelet = await findKubelet();
  if (kubelet === undefined || kubelet.startedAt === startedAt) return false;
  const readyAt = await lastReadyAt();
  return readyAt !== readyBefore && readyAt > kubelet.startedAtMs - toleranceMs;
}

/** Both times are known to a second. A kubelet tells the API server at its start, and then every five minutes. */
const toleranceMs = 2000;

/** Notes that a change is not tried again, and restarts a kubelet that runs with it: what was before it is back. */
export async function giveUpChange(change: string, options: KubeletRestartOptions): Promise<void> {
  const kubelet = await options.findKubelet();
  await writeRecord(options.files, options.folder, { change, state: "failed", startedAt: 0 });
  if (kubelet !== undefined) options.endProcess(kubelet.pid);
}

/** Notes that a kubelet knows a configuration without having been restarted for it. */
export const noteKnown = (
  change: string,
  { files, folder }: Pick<KubeletRestartOptions, "files" | "folder">,
): Promise<unknown> => writeRecord(files, folder, { change, state: "done", startedAt: 0 });

/** Where the configuration is kept that the kubelet ran with before the last change. */
export const previousPath = (folder: string): string => join(folder, `.${providerName}.previous`);

/** Forgets all restarts, when the node's files are taken back. */
export async function forgetRestarts(files: NodeFiles, folder: string): Promise<void> {
  await removeNodeFile(files, recordPath(folder));
  await removeNodeFile(files, previousPath(folder));
}

const writeRecord = (files: NodeFiles, folder: string, record: RestartRecord): Promise<unknown> =>
  writeNodeFile(files, recordPath(folder), `${JSON.stringify(record)}\n`, 0o600);

async function readRecord(files: NodeFiles, folder: string): Promise<RestartRecord | undefined> {
  const value = parseJson(await readNodeFile(files, recordPath(folder)));
  const [change, state, startedAt] = ["change", "state", "startedAt"].map((key) =>
    property(value, key),
  );
  if (typeof change !== "string" || typeof startedAt !== "number") return undefined;
  if (state !== "restarting" && state !== "done" && state !== "failed") return undefined;
  return { change, state, startedAt };
}
