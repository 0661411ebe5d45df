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

/** What some tools do beside that, in a table of its own. */
export const otherOperations = [
  "sync",
  "login",
  "copies",
  "backup",
  "imagetools",
  "sign-by-tag",
  "sign-by-referrer",
] as const;
export type OtherOperation = (typeof otherOperations)[number];

/** What has to be done before. */
const preparations = ["volume", "daemon", "setup"] as const;
export type Step = Operation | OtherOperation | (typeof preparations)[number];

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
  const folder = join(project, "examples", name);
  const blocks = shellBlocks(join(folder, "README.md")).map(({ words, commands }) => ({
    ...readWords(name, words),
    commands,
  }));
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

const project = join(import.meta.dirname, "../..");

/**
 * The same tool by the commands of docs/forward-proxy.md, in blocks that begin with "```sh volume", "```sh setup", "```sh crane"
 * (what it does is a push) and, where it has a daemon, "```sh crane daemon".
 */
export function readForwardExample(name: string): Example {
  const blocks = new Map(
    shellBlocks(join(project, "docs/forward-proxy.md")).map(({ words, commands }) => [
      words,
      commands,
    ]),
  );
  // Before there is a volume, its .env can't be read.
  const titles: Partial<Record<Step, readonly string[]>> = {
    volume: ["volume"],
    daemon: [`${name} daemon`],
    push: ["setup", name],
  };
  return {
    name,
    folder: join(project, "examples", name),
    commands: (step) => (titles[step] ?? []).map((title) => blocks.get(title) ?? "").join(""),
  };
}

function shellBlocks(
  file: string,
): readonly { readonly words: string; readonly commands: string }[] {
  const blocks = readFileSync(file, "utf8").matchAll(/^```sh( [^\n]*)?\n(.*?)^```$/gms);
  return [...blocks].map(([, words = "", commands = ""]) => ({ words: words.trim(), commands }));
}

interface Words {
  readonly steps: readonly Step[];
  readonly only: Transport | undefined;
}

function readWords(name: string, text: string): Words {
  const words = text.trim().split(" ");
  const only = transports.find((transport) => words.includes(transport));
  const known: readonly Step[] = [...preparations, ...operations, ...otherOperations];
  const steps = words.flatMap((word) => known.find((step) => step === word) ?? []);
  if (steps.length === 0 || steps.length + (only === undefined ? 0 : 1) < words.length) {
    throw new Error(`examples/${name}/README.md: "sh ${text.trim()}" says nothing to be run`);
  }
  return { steps, only };
}
