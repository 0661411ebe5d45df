/** How a check has ended. */
export type Verdict = "ok" | "warning" | "failed" | "not checked";

/** The result of one check. It never has a Secret's value. */
export interface Finding {
  /** What was checked: `CSIDriver`. */
  readonly subject: string;
  readonly verdict: Verdict;
  /** What was found, in a sentence. */
  readonly found: string;
  /** What to do; undefined where nothing is to be done. */
  readonly advice: string | undefined;
}

/** Creates the finding that something is as it should be. */
export const fine = (subject: string, found: string): Finding => ({
  subject,
  verdict: "ok",
  found,
  advice: undefined,
});

/** Creates the finding that something works, though not as it should, or not everywhere. @param advice what to do */
export const warning = (subject: string, found: string, advice: string): Finding => ({
  subject,
  verdict: "warning",
  found,
  advice,
});

/** Creates the finding that something does not work. @param advice what to do */
export const failure = (subject: string, found: string, advice: string): Finding => ({
  subject,
  verdict: "failed",
  found,
  advice,
});

/** Creates the finding that something could not be checked. @param advice how to find out */
export const notChecked = (subject: string, found: string, advice?: string): Finding => ({
  subject,
  verdict: "not checked",
  found,
  advice,
});

/** The advice that restores whatever of the installation is missing or was changed. */
export const installAdvice =
  "apply your overlay again: kubectl apply -k my-cluster/ (docs/install.md)";

/** A section of a report. */
export interface Section {
  /** The heading: `Connector team-a/harbor`. */
  readonly title: string;
  readonly findings: readonly Finding[];
}

const verdicts: readonly Verdict[] = ["ok", "warning", "failed", "not checked"];

const verdictText = (verdict: Verdict): string => (verdict === "failed" ? "FAILED" : verdict);

/** What was found, for a command to print. */
export interface Diagnosis {
  /** The text to print. */
  readonly report: string;
  /** Whether any check has failed. */
  readonly failed: boolean;
}

/** Makes the report of some sections. @param format `json` is for programs */
export const diagnosisOf = (sections: readonly Section[], format: "text" | "json"): Diagnosis => ({
  report: format === "json" ? jsonReport(sections) : textReport(sections),
  failed: hasFailed(sections),
});

/** The report for people: a line for each finding, in columns, and a last line with the number of each verdict. */
function textReport(sections: readonly Section[]): string {
  const all = sections.flatMap(({ findings }) => findings);
  const width = Math.max(...all.map(({ subject }) => subject.length));
  const verdictWidth = Math.max(...verdicts.map(({ length }) => length));
  const line = ({ subject, verdict, found, advice }: Finding): string => {
    const columns = `  ${verdictText(verdict).padEnd(verdictWidth)}  ${subject.padEnd(width)}  ${found}`;
    return oneLine(advice === undefined ? columns : `${columns} → ${advice}`);
  };
  const parts = sections.map(({ title, findings }) =>
    [title, ...findings.map(line), ""].join("\n"),
  );
  const counts = verdicts
    .map(
      (verdict) =>
        [all.filter((one) => one.verdict === verdict).length, verdictText(verdict)] as const,
    )
    .filter(([count]) => count > 0)
    .map(([count, verdict]) => `${count} ${verdict}`);
  return `${parts.join("\n")}\n${counts.join(", ")}\n`;
}

/** The report for programs: JSON. */
const jsonReport = (sections: readonly Section[]): string =>
  `${JSON.stringify({ ok: !hasFailed(sections), sections }, undefined, 2)}\n`;

/** Whether any check has failed. */
const hasFailed = (sections: readonly Section[]): boolean =>
  sections.some(({ findings }) => findings.some(({ verdict }) => verdict === "failed"));

/**
 * A text on one line. Messages of conditions and errors are other people's text, so control characters are shown as
 * their codes.
 */
const oneLine = (text: string): string =>
  text
    .replace(/\s+$/u, "")
    .replace(/[\p{C}\u2028\u2029]/gu, (sign) =>
      sign === "\n" ? " " : `\\u{${sign.codePointAt(0)?.toString(16)}}`,
    );
