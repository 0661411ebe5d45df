import { isIP } from "node:net";
import { resolve } from "node:path";
import { type ParseArgsConfig, parseArgs } from "node:util";
import { parseGoDuration } from "./connector/duration.ts";
import { type Checked, type Problem, show } from "./connector/problem.ts";

/** Where the proxy listens. */
export interface ListenSetting {
  readonly scheme: "http" | "https";
  /** A host name or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
}

export interface StandaloneSettings {
  readonly connectors: string;
  readonly state: string;
  readonly socket: string;
  readonly listen: readonly ListenSetting[];
  /** Seconds that a volume's token lives, unless the volume says otherwise. */
  readonly tokenLifetime: number;
  /** Milliseconds that requests under way may take once the process is told to end. */
  readonly grace: number;
}

export interface MountSettings {
  readonly socket: string;
  readonly target: string;
  readonly namespace: string;
  readonly group: string;
  readonly attributes: Readonly<Record<string, string>>;
}

/** What a person has asked this process to do. */
export type Command =
  | { readonly name: "standalone"; readonly settings: StandaloneSettings }
  | { readonly name: "mount"; readonly settings: MountSettings }
  | { readonly name: "unmount"; readonly settings: Pick<MountSettings, "socket" | "target"> }
  | { readonly name: "help" };

export const usage = `usage: oci-connector <command> [options]

  standalone  serve connectors on this machine, without Kubernetes
      --connectors DIR      folder of YAML with Connectors and their Secrets
      --listen ADDRESS      [http://|https://]HOST:PORT, https unless told; at most one of each
                            (default 127.0.0.1:5080)
      --state DIR           keys, certificate authority and records of mounted volumes
                            (default /var/lib/oci-connector)
      --token-lifetime TIME how long a volume's token lives (default 4h, at least 10m)
      --grace TIME          how long requests under way may take at the end (default 30s)

  mount TARGET  mount a volume with the files for some connectors
      --connectors NAMES    connectors that it opens: <name> or <namespace>/<name>, with commas
      --configuration NAMES docker-config, buildkitd, registries-conf, containerd, !<file>, with commas
      --params JSON         settings of the configurations
      --token-expiration TIME
      --namespace NAME      namespace of connectors that are named without one (default default)
      --group GID           group that may read the volume (default: the caller's)
      --state DIR           of the standalone process (default /var/lib/oci-connector)

  unmount TARGET
      --state DIR           of the standalone process (default /var/lib/oci-connector)
`;

const defaultState = "/var/lib/oci-connector";
const defaultListen = "127.0.0.1:5080";

/** What of the process a command may depend on. */
export interface CommandContext {
  readonly workingDirectory: string;
  readonly group: number;
}

/** Reads a command line; every value that is wrong is named at once. */
export function readCommand(
  [name = "help", ...args]: readonly string[],
  context: CommandContext,
): Checked<Command> {
  switch (name) {
    case "standalone":
      return readStandalone(args, context);
    case "mount":
      return readMount(args, context);
    case "unmount":
      return readUnmount(args, context);
    case "help":
    case "--help":
    case "-h":
      return { ok: true, value: { name: "help" } };
    default:
      return wrong("command", name, "one of standalone, mount, unmount, help");
  }
}

function readStandalone(args: readonly string[], context: CommandContext): Checked<Command> {
  const read = readOptions(args, {
    connectors: { type: "string" },
    listen: { type: "string", multiple: true, default: [defaultListen] },
    state: { type: "string", default: defaultState },
    "token-lifetime": { type: "string", default: "4h" },
    grace: { type: "string", default: "30s" },
  });
  if (!read.ok) return read;
  const { values, positionals } = read.value;
  const problems: Problem[] = positionals.map((text) =>
    problem("argument", text, "options alone, see oci-connector help"),
  );
  const { connectors } = values;
  if (typeof connectors !== "string") {
    problems.push(
      problem("--connectors", undefined, "a folder of YAML with Connectors and Secrets"),
    );
  }
  const listen = listenSettings([values.listen ?? []].flat().map(String), problems);
  const tokenLifetime = seconds("--token-lifetime", values["token-lifetime"], 600, problems);
  const grace = seconds("--grace", values.grace, 0, problems);
  if (problems.length > 0) return { ok: false, problems };
  const state = resolve(context.workingDirectory, String(values.state));
  const settings = {
    connectors: resolve(context.workingDirectory, String(connectors)),
    state,
    socket: resolve(state, "csi.sock"),
    listen,
    tokenLifetime,
    grace: grace * 1000,
  };
  return { ok: true, value: { name: "standalone", settings } };
}

function readMount(args: readonly string[], context: CommandContext): Checked<Command> {
  const read = readOptions(args, {
    connectors: { type: "string", default: "" },
    configuration: { type: "string", default: "" },
    params: { type: "string", default: "" },
    "token-expiration": { type: "string", default: "" },
    namespace: { type: "string", default: "default" },
    group: { type: "string", default: String(context.group) },
    state: { type: "string", default: defaultState },
  });
  if (!read.ok) return read;
  const { values } = read.value;
  const located = readTarget(read.value, context);
  if (!located.ok) return located;
  const attributes = {
    connectors: String(values.connectors),
    "configuration.names": String(values.configuration),
    "configuration.params": String(values.params),
    "token.expiration": String(values["token-expiration"]),
  };
  const { namespace, group } = values;
  const settings = {
    ...located.value,
    namespace: String(namespace),
    group: String(group),
    attributes,
  };
  return { ok: true, value: { name: "mount", settings } };
}

function readUnmount(args: readonly string[], context: CommandContext): Checked<Command> {
  const read = readOptions(args, { state: { type: "string", default: defaultState } });
  if (!read.ok) return read;
  const located = readTarget(read.value, context);
  return located.ok ? { ok: true, value: { name: "unmount", settings: located.value } } : located;
}

interface Options {
  readonly values: Readonly<Record<string, unknown>>;
  readonly positionals: readonly string[];
}

function readOptions(
  args: readonly string[],
  options: NonNullable<ParseArgsConfig["options"]>,
): Checked<Options> {
  try {
    return { ok: true, value: parseArgs({ args: [...args], options, allowPositionals: true }) };
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    return { ok: false, problems: [{ path: "options", found, wanted: "see oci-connector help" }] };
  }
}

function readTarget(
  { values, positionals }: Options,
  { workingDirectory }: CommandContext,
): Checked<Pick<MountSettings, "socket" | "target">> {
  const [target, ...others] = positionals;
  if (target === undefined || others.length > 0) {
    return wrong("TARGET", positionals, "one folder to mount the volume at");
  }
  const socket = resolve(workingDirectory, String(values.state), "csi.sock");
  return { ok: true, value: { socket, target: resolve(workingDirectory, target) } };
}

const listenPattern = /^(?:(https?):\/\/)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/;

function listenSettings(texts: readonly string[], problems: Problem[]): readonly ListenSetting[] {
  const settings = texts.flatMap((text) => {
    const [, scheme = "https", host, port] = listenPattern.exec(text) ?? [];
    const name = host?.replace(/^\[|\]$/g, "");
    if (name === undefined || Number(port) > 65535) {
      problems.push(problem("--listen", text, "[http://|https://]HOST:PORT"));
      return [];
    }
    if (isIP(name) !== 0 && /^[0.:]+$/.test(name)) {
      const wanted = "the address that tools are to use: it stands in every file of a volume";
      problems.push(problem("--listen", text, wanted));
    }
    return [
      { scheme: scheme === "http" ? "http" : "https", host: name, port: Number(port) } as const,
    ];
  });
  if (new Set(settings.map(({ scheme }) => scheme)).size < settings.length) {
    problems.push(problem("--listen", texts, "one http and one https address at most"));
  }
  return settings;
}

function seconds(path: string, text: unknown, least: number, problems: Problem[]): number {
  const value = parseGoDuration(String(text));
  if (value !== undefined && value >= least) return value;
  problems.push(problem(path, text, `a duration of at least ${least} s, such as 30m or 1h30m`));
  return 0;
}

const problem = (path: string, found: unknown, wanted: string): Problem => ({
  path,
  found: show(found),
  wanted,
});

const wrong = (path: string, found: unknown, wanted: string): Checked<never> => ({
  ok: false,
  problems: [problem(path, found, wanted)],
});
