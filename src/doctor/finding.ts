export type Verdict = "ok" | "warning" | "failed" | "not checked";

/** What a look at one thing has come to. Never a Secret's value. */
export interface Finding {
  /** What was looked at: `CSIDriver`. */
  readonly subject: string;
  readonly verdict: Verdict;
  readonly found: string;
  /** What to do; undefined where nothing is to be done. */
  readonly advice: string | undefined;
}

export const fine = (subject: string, found: string): Finding => ({
  ...{ subject, verdict: "ok", found, advice: undefined },
});

/** It works, though not as it should, or not everywhere. */
export const warning = (subject: string, found: string, advice: string): Finding => ({
  ...{ subject, verdict: "warning", found, advice },
});

export const failure = (subject: string, found: string, advice: string): Finding => ({
  ...{ subject, verdict: "failed", found, advice },
});

/** Nobody knows whether it is right. @param advice how to find out */
export const notChecked = (subject: string, found: string, advice?: string): Finding => ({
  ...{ subject, verdict: "not checked", found, advice },
});

/** What puts right whatever of the installation is missing or has been changed. */
export const install = "install it again: kubectl apply -k daemonset/";
