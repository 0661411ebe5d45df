import { constants } from "node:os";

/** Somebody has ended the demo. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  /** What a shell reports of a process that the signal has ended. */
  readonly status: number;
  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal} before its end`);
    this.status = 128 + constants.signals[signal];
  }
}

/**
 * Takes over the signals that end a process: from now on they only abort, with an `Interrupted`, and
 * the process has to end by itself. Those after the first change nothing: npm passes on the SIGINT of
 * Ctrl-C, which the terminal has sent to the process already.
 */
export function catchInterruption(): AbortSignal {
  const controller = new AbortController();
  const interrupt = (signal: NodeJS.Signals): void => controller.abort(new Interrupted(signal));
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  process.on("SIGHUP", interrupt);
  // Node ignores SIGPIPE. A terminal that was closed, or `| head`, fails each write instead.
  process.stdout.on("error", () => interrupt("SIGPIPE"));
  process.stderr.on("error", () => interrupt("SIGPIPE"));
  return controller.signal;
}
