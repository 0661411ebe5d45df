import { readFileSync } from "node:fs";
import { join } from "node:path";

export type Transport = "tls" | "http";
export const transports: readonly Transport[] = ["tls", "http"];

/** What a tool does with a registry, in the order in which it is tried. */
export const operations = [
  "push",
  "pull",
  "index",
  "mount",
  "cache",
  "referrer",
  "pull-own-name",
  "push-own-name",
] as const;
export type Operation = (typeof operations)[number];

/** What has to be done before. */
const preparations = ["volume", "daemon", "setup"] as const;
export type Step = Operation | (typeof preparations)[number];

/** The commands in the README of a folder in examples/. */
export interface Example {
  readonly name: string;
  readonly folder: string;
  /** Empty where the README has none. */
  commands(step: Step, transport: Transport): string;
}

/**
 * Reads the blocks of an example that begin with a line such as "```sh push tls": for which steps they
 * are, and for which transport unless they do for both.
 * @throws an Error where a block of shell says anything else
 */
export function readExample(name: string): Example {
  const folder = join(import.meta.dirname, "../../examples", name);
  const text = readFileSync(join(folder, "README.md"), "utf8");
  const blocks = [...text.matchAll(/^```sh( [^\n]*)?\n(.*?)^```$/gms)].map(
    ([, words = "", commands = ""]) => ({ ...readWords(name, words), commands }),
  );
  return {
    name,
    folder,
    commands: (step, transport) =>
      blocks
        .filter(({ steps, only }) => steps.includes(step) && (only ?? transport) === transport)
        .map(({ commands }) => commands)
        .join(""),
  };
}

interface Words {
  readonly steps: readonly Step[];
  readonly only: Transport | undefined;
}

function readWords(name: string, text: string): Words {
  const words = text.trim().split(" ");
  const only = transports.find((transport) => words.includes(transport));
  const known: readonly Step[] = [...preparations, ...operations];
  const steps = words.flatMap((word) => known.find((step) => step === word) ?? []);
  if (steps.length === 0 || steps.length + (only === undefined ? 0 : 1) < words.length) {
    throw new Error(`examples/${name}/README.md: "sh ${text.trim()}" says nothing to be run`);
  }
  return { steps, only };
}
