import { exitCodes } from "../config/help.ts";
import type { Log } from "../log.ts";
import { createProcessLog, type ProcessLog } from "./process-log.ts";

/** A role that runs in this process. */
export interface Role {
  /** Ends in order: it takes no new work and finishes what is under way. Volumes stay mounted. */
  stop(): Promise<void>;
}

/**
 * Runs a role until SIGTERM or SIGINT comes, then stops it. A second signal ends the process at once.
 * @param start starts the role. Its signal is aborted where the process has to end before the role has started
 * @throws what `start` throws. After a signal to end, that is logged alone: Ctrl-C also ends the programs that a
 *   start waits for, such as flock(1), and their failure is not the reason why the process ends
 */
export async function runRole(
  start: (processLog: ProcessLog, signal: AbortSignal) => Promise<Role>,
): Promise<void> {
  const processLog = createProcessLog();
  const { log } = processLog;
  logWarnings(log);
  const ending = new AbortController();
  const ended = shutdownSignal(log).then(() => ending.abort());
  const role = await start(processLog, ending.signal).catch((error: unknown) => {
    if (!ending.signal.aborted) throw error;
    if (error !== ending.signal.reason) {
      log("info", "the role was ended before it had started", { error });
    }
  });
  await ended;
  await role?.stop();
}

/** Logs the warnings of Node.js and of libraries. Without this, Node.js writes them to stderr and waits until they are read. */
function logWarnings(log: Log): void {
  process.removeAllListeners("warning");
  process.on("warning", (error) => log("warning", "Node.js has warned", { error }));
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
