/** What this program ends with, and what that says. `help` and README.md show the same table. */
export const exitCodes: Readonly<Record<"done" | "failed" | "wrongUsage", ExitCode>> = {
  done: { code: 0, meaning: "done; a process that serves was told to end, and has ended in order" },
  failed: {
    code: 1,
    meaning:
      "failed, as the message says; doctor has found a failure; a second signal has cut the end short",
  },
  /** sysexits.h: EX_USAGE. */
  wrongUsage: {
    code: 64,
    meaning: "the command line, or an environment variable that it relies on, is wrong",
  },
};

interface ExitCode {
  readonly code: number;
  readonly meaning: string;
}
