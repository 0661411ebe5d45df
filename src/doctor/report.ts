/** The findings about one thing. */
export interface Section {
  /** `Connector team-a/harbor` */
  readonly title: string;
  readonly findings: readonly Finding[];
}

const verdicts: readonly Verdict[] = ["ok", "warning", "failed", "not checked"];

const shown = (verdict: Verdict): string => (verdict === "failed" ? "FAILED" : verdict);

/** For people: a line for each finding, in columns, and a last line with the numbers. */
export function textReport(sections: readonly Section[]): string {
  const all = sections.flatMap(({ findings }) => findings);
  const width = Math.max(...all.map(({ subject }) => subject.length));
  const verdictWidth = Math.max(...verdicts.map(({ length }) => length));
  const line = ({ subject, verdict, found, advice }: Finding): string => {
    const columns = `  ${shown(verdict).padEnd(verdictWidth)}  ${subject.padEnd(width)}  ${found}`;
    return oneLine(advice === undefined ? columns : `${columns} → ${advice}`);
  };
  const parts = sections.map(({ title, findings }) =>
    [title, ...findings.map(line), ""].join("\n"),
  );
  const numbers = verdicts
    .map(
      (verdict) => [all.filter((one) => one.verdict === verdict).length, shown(verdict)] as const,
    )
    .filter(([count]) => count > 0)
    .map(([count, verdict]) => `${count} ${verdict}`);
  return `${parts.join("\n")}\n${numbers.join(", ")}\n`;
}

/** For programs. */
export const jsonReport = (sections: readonly Section[]): string =>
  `${JSON.stringify({ ok: !hasFailed(sections), sections }, undefined, 2)}\n`;

export const hasFailed = (sections: readonly Section[]): boolean =>
  sections.some(({ findings }) => findings.some(({ verdict }) => verdict === "failed"));

/** Messages of conditions and errors are other people's text: nothing in them acts upon a terminal. */
const oneLine = (text: string): string =>
  text
    .replace(/\s+$/u, "")
    .replace(/[\p{C}\u2028\u2029]/gu, (sign) =>
      sign === "\n" ? " " : `\\u{${sign.codePointAt(0)?.toString(16)}}`,
    );

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
