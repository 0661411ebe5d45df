import { join, resolve } from "node:path";
import { isAccountNumber } from "../connector/account-number.ts";
import type { Checked, Problem } from "../connector/problem.ts";
import { parseVolumeAttributes, type VolumeAttributes } from "../connector/volume-attributes.ts";
import {
  type CommandLine,
  type DurationRange,
  type OutputFormat,
  problem,
  readCommandLine,
  readOutputFormat,
  readSeconds,
} from "./command-line.ts";

/** What `mount` and `run` ask the standalone process for. */
export interface VolumeSettings {
  /** The socket of the standalone process. */
  readonly socket: string;
  /** The namespace of connectors that are named without one. */
  readonly namespace: string;
  /** The number of the group that may read the volume; empty for the caller alone. */
  readonly group: string;
  /** The volume's attributes, as in a Pod's `volumeAttributes`. */
  readonly attributes: Readonly<Record<string, string>>;
}

/** The settings of `mount`. */
export interface MountSettings extends VolumeSettings {
  /** The folder to mount the volume at, as an absolute path. */
  readonly target: string;
  /** For how many seconds the volume lives at most; 0 for no limit. */
  readonly lifetimeSeconds: number;
  /** The number of the process that the volume ends with. */
  readonly pid: number | undefined;
  readonly isReadOnly: boolean;
  /** Whether the volume is mounted again after a reboot. */
  readonly isPersistent: boolean;
  /** Whether a volume that is mounted at the target ends for this one. */
  readonly replaces: boolean;
  /** Whether the volume may hide files that are in its target. */
  readonly hidesFiles: boolean;
}

/** The settings of `unmount`. */
export type UnmountSettings = Pick<MountSettings, "socket" | "target">;

/** The settings of `volumes`. */
export interface VolumesSettings {
  /** The socket of the standalone process. */
  readonly socket: string;
  readonly output: OutputFormat;
}

/** The settings of `run`. */
export interface RunSettings extends VolumeSettings {
  /** The command and its arguments. */
  readonly command: readonly [string, ...string[]];
  /** Whether the command gets the variables of the forward proxy, too. */
  readonly usesForwardProxy: boolean;
}

/** What the commands about volumes depend on beside their arguments. */
export interface VolumeCommandContext {
  /** What relative paths are relative to. */
  readonly workingDirectory: string;
  /** The group of this process. */
  readonly group: number;
  /** The number of the user of this process. */
  readonly uid: number;
}

/** The state folder of a standalone process that names none. */
export const defaultState = "/var/lib/oci-connector";

/** The socket of the process with a state folder. */
export const socketIn = (state: string): string => resolve(state, "csi.sock");

/** The folder for volumes of a standalone process that names none. */
export const defaultRunFolder = "/run/oci-connector";

/** The folder with the sockets of users who are not root. */
export const usersFolderIn = (runFolder: string): string => resolve(runFolder, "users");

/** The socket of a user who is not root. */
export const userSocketIn = (runFolder: string, uid: number): string =>
  join(usersFolderIn(runFolder), `${uid}.sock`);

/** The options by which a command finds the standalone process. */
const processOptions = { state: defaultState, "run-folder": defaultRunFolder } as const;

/** The socket for the user of this process. */
function socketOf(
  { text }: Pick<CommandLine<keyof typeof processOptions>, "text">,
  { workingDirectory, uid }: VolumeCommandContext,
): string {
  return uid === 0
    ? socketIn(resolve(workingDirectory, text("state")))
    : userSocketIn(resolve(workingDirectory, text("run-folder")), uid);
}

/** How long tokens of volumes may live. */
export const tokenLifetimeRange: DurationRange = { min: "10m", max: "8760h" };

/** The options that say what a volume holds, and their values unless given. */
export const volumeOptions = {
  connectors: "",
  configuration: "",
  params: "",
  namespace: "default",
} as const;

/** What a volume holds, as attributes of a Pod's volume and as checked values. */
export interface VolumeOptions {
  readonly given: Readonly<Record<string, string>>;
  readonly checked: VolumeAttributes;
}

/** Which option of a command line becomes which attribute of a volume. */
const optionOfAttribute: Readonly<Record<string, string>> = {
  connectors: "--connectors",
  "configuration.names": "--configuration",
  "configuration.params": "--params",
};

/**
 * Reads the options that say what a volume holds. Problems name the option, and not the attribute that comes of it.
 * @returns undefined where anything is wrong with them, which is added to the problems
 */
export function readVolumeOptions({
  text,
  problems,
}: Pick<CommandLine<keyof typeof volumeOptions>, "text" | "problems">): VolumeOptions | undefined {
  const given = {
    connectors: text("connectors"),
    "configuration.names": text("configuration"),
    "configuration.params": text("params"),
  };
  const checked = parseVolumeAttributes(given, text("namespace"));
  if (checked.ok) return { given, checked: checked.value };
  const told = new Set(problems.map(({ path }) => path));
  problems.push(...checked.problems.map(namingTheOption).filter(({ path }) => !told.has(path)));
  return undefined;
}

/**
 * A problem with an attribute of a volume, as one with the option that it comes of. A setting inside of `--params` keeps
 * its place: `--params.buildkitd.mirror`.
 */
export function namingTheOption({ path, ...found }: Problem): Problem {
  const attribute = Object.keys(optionOfAttribute).find(
    (name) => path === name || path.startsWith(`${name}.`),
  );
  if (attribute === undefined) return { path, ...found };
  return { path: `${optionOfAttribute[attribute]}${path.slice(attribute.length)}`, ...found };
}

/** The options of `mount` and `run` alike, and their values unless given. */
const requestOptions = (context: VolumeCommandContext) =>
  ({
    ...volumeOptions,
    "token-expiration": "",
    // A volume of a user who is not root is for that user alone.
    group: context.uid === 0 ? String(context.group) : "",
    ...processOptions,
  }) as const;

type RequestOption = keyof ReturnType<typeof requestOptions>;

/** @returns undefined where anything is wrong with the options, which is added to the problems */
function readVolumeSettings(
  line: Pick<CommandLine<RequestOption>, "text" | "problems">,
  context: VolumeCommandContext,
): VolumeSettings | undefined {
  const { text, problems } = line;
  const options = readVolumeOptions(line);
  const expiration = text("token-expiration");
  if (expiration !== "") readSeconds(line, "token-expiration", tokenLifetimeRange);
  const group = text("group");
  if (group !== "" && !isAccountNumber(group))
    problems.push(problem("--group", group, "the number of a group"));
  if (options === undefined) return undefined;
  return {
    socket: socketOf(line, context),
    namespace: text("namespace"),
    group,
    attributes: { ...options.given, "token.expiration": expiration },
  };
}

/** How long a volume may live. */
const lifetimeRange: DurationRange = { min: "1s", max: "8760h" };

/** Reads the options of `mount`. */
export function readMount(
  args: readonly string[],
  context: VolumeCommandContext,
): Checked<{ readonly name: "mount"; readonly settings: MountSettings }> {
  const line = readCommandLine(
    args,
    {
      ...requestOptions(context),
      for: "24h",
      pid: "",
    },
    ["read-only", "persistent", "replace", "force"],
  );
  const { text, has, problems } = line;
  const { target } = targetOf(line, context);
  const volume = readVolumeSettings(line, context);
  const lifetimeSeconds = text("for") === "0" ? 0 : readSeconds(line, "for", lifetimeRange);
  const pid = text("pid");
  if (pid !== "" && !/^[1-9]\d{0,9}$/.test(pid)) {
    problems.push(problem("--pid", pid, "the number of a process that runs"));
  }
  if (pid !== "" && has("persistent")) {
    const wanted = "one of --pid and --persistent, since no process outlives a reboot";
    problems.push(problem("--pid", pid, wanted));
  }
  if (volume === undefined || problems.length > 0) return { ok: false, problems };
  const settings = {
    ...volume,
    target,
    lifetimeSeconds: Math.ceil(lifetimeSeconds),
    pid: pid === "" ? undefined : Number(pid),
    isReadOnly: has("read-only"),
    isPersistent: has("persistent"),
    replaces: has("replace"),
    hidesFiles: has("force"),
  };
  return { ok: true, value: { name: "mount", settings } };
}

/**
 * Reads the options of `run`. Unless it is told otherwise, the command's tools get what most of them read, and images
 * can be pulled by their own names.
 */
export function readRun(
  args: readonly string[],
  context: VolumeCommandContext,
): Checked<{ readonly name: "run"; readonly settings: RunSettings }> {
  const end = args.indexOf("--");
  const line = readCommandLine(end < 0 ? args : args.slice(0, end), requestOptions(context), [
    "forward",
  ]);
  const { has, problems } = line;
  const [program = "", ...others] = end < 0 ? [] : args.slice(end + 1);
  if (program === "") {
    problems.push(problem("COMMAND", program, 'a command and its arguments behind "--"'));
  }
  for (const found of line.positionals) {
    problems.push(problem("argument", found, 'options only before "--"'));
  }
  const volume = readVolumeSettings({ ...line, text: withToolDefaults(line.text) }, context);
  if (volume === undefined || problems.length > 0) return { ok: false, problems };
  const command = [program, ...others] as const;
  const settings = { ...volume, command, usesForwardProxy: has("forward") };
  return { ok: true, value: { name: "run", settings } };
}

/** The options with what a `run` without configurations gets. */
function withToolDefaults(text: (name: RequestOption) => string): (name: RequestOption) => string {
  if (text("configuration") !== "" || text("params") !== "") return text;
  const defaults = new Map<RequestOption, string>([
    ["configuration", "docker-config,registries-conf"],
    ["params", '{"registries-conf": {"mirror": true}}'],
  ]);
  return (name) => defaults.get(name) ?? text(name);
}

/** Reads the options of `volumes`. */
export function readVolumes(
  args: readonly string[],
  context: VolumeCommandContext,
): Checked<{ readonly name: "volumes"; readonly settings: VolumesSettings }> {
  const line = readCommandLine(args, { ...processOptions, output: "text" });
  const { problems } = line;
  for (const found of line.positionals) problems.push(problem("argument", found, "options only"));
  const output = readOutputFormat(line);
  if (problems.length > 0) return { ok: false, problems };
  const socket = socketOf(line, context);
  return { ok: true, value: { name: "volumes", settings: { socket, output } } };
}

/** Reads the options of `unmount`. */
export function readUnmount(
  args: readonly string[],
  context: VolumeCommandContext,
): Checked<{ readonly name: "unmount"; readonly settings: UnmountSettings }> {
  const line = readCommandLine(args, processOptions);
  const settings = targetOf(line, context);
  if (line.problems.length > 0) return { ok: false, problems: line.problems };
  return { ok: true, value: { name: "unmount", settings } };
}

function targetOf(
  line: CommandLine<keyof typeof processOptions>,
  context: VolumeCommandContext,
): UnmountSettings {
  const { positionals, problems } = line;
  const [target = "", ...others] = positionals;
  if (target === "" || others.length > 0) {
    problems.push(problem("TARGET", positionals, "one folder to mount the volume at"));
  }
  return { socket: socketOf(line, context), target: resolve(context.workingDirectory, target) };
}
