import { isPattern, patternRule } from "../connector/pattern-set.ts";
import type { Problem } from "../connector/problem.ts";
import { problem } from "./command-line.ts";

/** Whom the operator of a machine allows which connectors. */
export interface AllowRule {
  readonly kind: "user" | "group";
  /** A name, or the number of a user or group. */
  readonly who: string;
  /** Patterns of `namespace/name`. */
  readonly connectors: readonly string[];
}

const form = /^(@?)([^@=,:\s][^=,:\s]*)=(.+)$/;

/**
 * Reads the values of `--allow`: `USER=NAMESPACE/NAME,…` or `@GROUP=…`, with patterns for names.
 * @param problems gets what is wrong with them
 */
export function readAllowRules(
  texts: readonly string[],
  problems: Problem[],
): readonly AllowRule[] {
  const rules: AllowRule[] = [];
  for (const text of texts.filter((value) => value !== "")) {
    const [, at = "", who = "", list = ""] = form.exec(text) ?? [];
    const connectors = list.split(",");
    if (who === "") {
      problems.push(problem("--allow", text, "USER=CONNECTORS or @GROUP=CONNECTORS"));
    } else if (!connectors.every(isConnectorPattern)) {
      const wanted = `NAMESPACE/NAME behind the "=", several with commas, each ${patternRule}`;
      problems.push(problem("--allow", text, wanted));
    } else rules.push({ kind: at === "" ? "user" : "group", who, connectors });
  }
  return rules;
}

const isConnectorPattern = (text: string): boolean =>
  isPattern(text) && (text === "**" || text.split("/").length === 2);
