import { exitCodes } from "../config/help.ts";
import { createProcessLog, type Log } from "../log.ts";

/** A role that runs in this process. */
export interface Role {
  /** Ends in order: it takes no new work and finishes what is under way. Volumes stay mounted. */
  stop(): Promise<void>;
}

/**
 * Runs a role until SIGTERM or SIGINT comes, then stops it. A second signal ends the process at once.
 * @param start starts the role. Its signal is aborted where the process has to end before the role has started
 * @throws what `start` throws, but for the reason of its signal
 */
export async function runRole(
  start: (log: Log, signal: AbortSignal) => Promise<Role>,
): Promise<void> {
  const log = createProcessLog();
  const ending = new AbortController();
  const ended = shutdownSignal(log).then(() => ending.abort());
  const role = await start(log, ending.signal).catch((error: unknown) => {
    if (error !== ending.signal.reason) throw error;
  });
  await ended;
  await role?.stop();
}

/** Settles at the first SIGTERM or SIGINT, also at one that comes before the role has started. */
async function shutdownSignal(log: Log): Promise<void> {
  await new Promise<void>((resolve) => {
    let isEnding = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (isEnding) process.exit(exitCodes.failed.code);
        isEnding = true;
        log("info", "received a signal to end; requests under way are finished first", { signal });
        resolve();
      });
    }
  });
}
