import { resolve } from "node:path";
import { parseEgressRules } from "../connector/egress-rules.ts";
import type { EgressSettings } from "./cluster-settings.ts";
import { type CommandLine, problem } from "./command-line.ts";

/** The options about a company's proxy that take a value, with their defaults. */
export const egressOptions: Readonly<
  Record<"egress-proxy" | "egress-no-proxy" | "egress-login", string>
> = {
  "egress-proxy": "",
  "egress-no-proxy": "",
  "egress-login": "",
};

/** The ones that take none. */
export const egressSwitches = ["egress-resolves"] as const;

/**
 * Reads the options about a company's proxy. What is wrong with them is added to the problems.
 * @param workingDirectory what a relative path is relative to
 * @returns undefined where there is no proxy
 */
export function readEgressOptions(
  { text, texts, has, problems }: CommandLine<keyof typeof egressOptions, "egress-resolves">,
  workingDirectory: string,
): EgressSettings | undefined {
  const proxy = text("egress-proxy");
  const login = text("egress-login");
  const rules = parseEgressRules(
    { proxy, noProxy: texts("egress-no-proxy").join(",") },
    has("egress-resolves"),
    { proxy: "--egress-proxy", noProxy: "--egress-no-proxy" },
  );
  if (!rules.ok) problems.push(...rules.problems);
  if (proxy === "" && (login !== "" || text("egress-no-proxy") !== "" || has("egress-resolves"))) {
    const wanted = "the company's proxy that the other options are about: http://HOST:PORT";
    problems.push(problem("--egress-proxy", undefined, wanted));
  }
  if (!rules.ok || rules.value === undefined) return undefined;
  const loginPath = login === "" ? undefined : resolve(workingDirectory, login);
  return { ...rules.value, loginPath };
}
