import { resolve } from "node:path";
import { didYouMean } from "../connector/nearest.ts";
import type { Checked } from "../connector/problem.ts";
import { parseTunnelRules, type TunnelRules } from "../connector/tunnel-rules.ts";
import { type AllowRule, readAllowRules } from "./allow-rules.ts";
import { type CheckSettings, readCheck } from "./check-command.ts";
import {
  type ControllerSettings,
  type CsiSettings,
  type EgressSettings,
  type Environment,
  type ProxySettings,
  readControllerSettings,
  readCsiSettings,
  readProxySettings,
} from "./cluster-settings.ts";
import {
  type ListenSetting,
  problem,
  readCommandLine,
  readListenSettings,
  readSeconds,
} from "./command-line.ts";
import { type DoctorSettings, readDoctor } from "./doctor-command.ts";
import { egressOptions, egressSwitches, readEgressOptions } from "./egress-options.ts";
import { type CommandName, commandNames, isCommandName } from "./help.ts";
import { type NodeImagesSettings, readNodeImagesSettings } from "./node-images-settings.ts";
import { type RenderSettings, readRender } from "./render-command.ts";
import {
  defaultRunFolder,
  defaultState,
  type MountSettings,
  type RunSettings,
  readMount,
  readRun,
  readUnmount,
  readVolumes,
  socketIn,
  tokenLifetimeRange,
  type UnmountSettings,
  type VolumeCommandContext,
  type VolumesSettings,
} from "./volume-commands.ts";

/** The settings of a standalone process. All paths are absolute. */
export interface StandaloneSettings {
  /** The folder of YAML with Connectors and Secrets. */
  readonly connectors: string;
  /** The folder for keys, the certificate authority and the records of mounted volumes. */
  readonly state: string;
  /** The socket of the CSI driver, in the state folder. */
  readonly socket: string;
  /** The folder for volumes of `run`. */
  readonly runFolder: string;
  readonly listen: readonly ListenSetting[];
  /** For how many seconds a volume's token is valid, unless the volume says otherwise. */
  readonly tokenLifetimeSeconds: number;
  /** How many milliseconds requests under way may take once the process has to end. */
  readonly graceMs: number;
  /** Which hosts clients may reach through the proxy, beside their connectors. */
  readonly tunnels: TunnelRules;
  /** A company's proxy, by which registries and other hosts are reached; undefined where there is none. */
  readonly egress: EgressSettings | undefined;
  /** The folder with the tokens of identities; without it no connector may name one. */
  readonly tokenFiles?: string;
  /** The folder with docker's credential helpers that connectors may name; without it they may name none. */
  readonly credentialHelpers?: string;
  /** Which users who are not root may have volumes, and with which connectors. */
  readonly allowed: readonly AllowRule[];
}

/** A command with its settings. */
export type Command =
  | { readonly name: "standalone"; readonly settings: StandaloneSettings }
  | { readonly name: "mount"; readonly settings: MountSettings }
  | { readonly name: "unmount"; readonly settings: UnmountSettings }
  | { readonly name: "volumes"; readonly settings: VolumesSettings }
  | { readonly name: "run"; readonly settings: RunSettings }
  | { readonly name: "render"; readonly settings: RenderSettings }
  | { readonly name: "check"; readonly settings: CheckSettings }
  | { readonly name: "doctor"; readonly settings: DoctorSettings }
  | { readonly name: "csi"; readonly settings: CsiSettings }
  | { readonly name: "proxy"; readonly settings: ProxySettings }
  | { readonly name: "controller"; readonly settings: ControllerSettings }
  | { readonly name: "node-images"; readonly settings: NodeImagesSettings }
  /** Without a topic it prints the list of commands. */
  | { readonly name: "help"; readonly topic: CommandName | undefined }
  | { readonly name: "version" };

/** What a command may depend on beside its arguments. */
export interface CommandContext extends VolumeCommandContext {
  readonly environment: Environment;
}

/**
 * Reads a command line and, for a role in a cluster, the environment.
 * @param args the arguments without the names of Node and of the script
 * @returns the command, or everything that is wrong with it
 * @example
 * const command = readCommand(["render", "--connectors", "team-a/harbor"], context);
 */
export function readCommand(
  [first = "help", ...args]: readonly string[],
  context: CommandContext,
): Checked<Command> {
  const name = shortForms.get(first) ?? first;
  if (!isCommandName(name)) return unknownCommand(name);
  if (name === "help") return readHelp(args);
  if (asksForHelp(args)) return { ok: true, value: { name: "help", topic: name } };
  switch (name) {
    case "standalone":
      return readStandalone(args, context);
    case "mount":
      return readMount(args, context);
    case "unmount":
      return readUnmount(args, context);
    case "volumes":
      return readVolumes(args, context);
    case "run":
      return readRun(args, context);
    case "render":
      return readRender(args);
    case "check":
      return readCheck(args, context.workingDirectory);
    case "doctor":
      return readDoctor(args, context.environment);
    case "csi":
      return readRole(name, args, readCsiSettings(context.environment));
    case "proxy":
      return readRole(name, args, readProxySettings(context.environment));
    case "controller":
      return readRole(name, args, readControllerSettings(context.environment));
    case "node-images":
      return readRole(name, args, readNodeImagesSettings(context.environment));
    case "version":
      return withoutArguments(args, { name });
  }
}

/** Options that people try before they know the commands. */
const shortForms: ReadonlyMap<string, CommandName> = new Map([
  ["--help", "help"],
  ["-h", "help"],
  ["--version", "version"],
  ["-V", "version"],
]);

const isHelpOption = (arg: string): boolean => shortForms.get(arg) === "help";

/** Behind `--` everything is an argument: a folder may be called `-h`. */
function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? args.length : end).some(isHelpOption);
}

function readHelp(args: readonly string[]): Checked<Command> {
  const [topic, ...others] = args.filter((arg) => !isHelpOption(arg));
  if (topic !== undefined && !isCommandName(topic)) return unknownCommand(topic);
  return withoutArguments(others, { name: "help", topic });
}

function unknownCommand(name: string): Checked<never> {
  const wanted = `one of ${commandNames.join(", ")}${didYouMean(name, commandNames)}`;
  return { ok: false, problems: [problem("command", name, wanted)] };
}

function withoutArguments(args: readonly string[], command: Command): Checked<Command> {
  const problems = args.map((found) => problem("argument", found, "no more words"));
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: command };
}

function readStandalone(args: readonly string[], context: CommandContext): Checked<Command> {
  const defaults = {
    connectors: "",
    listen: "https://127.0.0.1:5443",
    state: defaultState,
    "run-folder": defaultRunFolder,
    "token-lifetime": "4h",
    grace: "30s",
    tunnel: "tunnel",
    "token-files": "",
    "credential-helpers": "",
    allow: "",
    ...egressOptions,
  };
  const line = readCommandLine(args, defaults, egressSwitches);
  const { text, problems } = line;
  for (const found of line.positionals) problems.push(problem("argument", found, "options only"));
  if (text("connectors") === "" && !problems.some(({ path }) => path === "--connectors")) {
    const wanted = "a folder of YAML with Connectors and Secrets";
    problems.push(problem("--connectors", undefined, wanted));
  }
  const listen = readListenSettings("--listen", line.texts("listen"), problems);
  const tokenLifetimeSeconds = readSeconds(line, "token-lifetime", tokenLifetimeRange);
  const graceMs = 1000 * readSeconds(line, "grace", { min: "0s", max: "24h" });
  const allowed = readAllowRules(line.texts("allow"), problems);
  const tunnels = parseTunnelRules(line.texts("tunnel").join(","), "--tunnel");
  if (!tunnels.ok) problems.push(...tunnels.problems);
  const egress = readEgressOptions(line, context.workingDirectory);
  if (!tunnels.ok || problems.length > 0) return { ok: false, problems };
  const inWorkingDirectory = (path: string): string => resolve(context.workingDirectory, path);
  const state = inWorkingDirectory(text("state"));
  const [tokenFiles, credentialHelpers] = [text("token-files"), text("credential-helpers")];
  const settings = {
    connectors: inWorkingDirectory(text("connectors")),
    state,
    socket: socketIn(state),
    runFolder: inWorkingDirectory(text("run-folder")),
    listen,
    tokenLifetimeSeconds,
    graceMs,
    tunnels: tunnels.value,
    egress,
    ...(tokenFiles === "" ? {} : { tokenFiles: inWorkingDirectory(tokenFiles) }),
    ...(credentialHelpers === ""
      ? {}
      : { credentialHelpers: inWorkingDirectory(credentialHelpers) }),
    allowed,
  };
  return { ok: true, value: { name: "standalone", settings } };
}

/** A role in a cluster takes all its settings from the environment. */
function readRole<Name extends string, Settings>(
  name: Name,
  args: readonly string[],
  settings: Checked<Settings>,
): Checked<{ readonly name: Name; readonly settings: Settings }> {
  const surplus = args.map((found) =>
    problem(
      "argument",
      found,
      "no arguments, since settings come from the environment: see daemonset/settings.env",
    ),
  );
  if (settings.ok && surplus.length === 0)
    return { ok: true, value: { name, settings: settings.value } };
  return { ok: false, problems: [...surplus, ...(settings.ok ? [] : settings.problems)] };
}
