import { parseJson } from "./document.ts";
import { type Checked, type Problem, show } from "./problem.ts";

/** The name of a tool's configuration that can be added to a volume. */
export type ConfigurationName = "docker-config" | "buildkitd" | "registries-conf" | "containerd";

/** Every name that people may write for a configuration, and the configuration that it means. */
export const configurationNames: ReadonlyMap<string, ConfigurationName> = new Map([
  ["docker-config", "docker-config"],
  ["registry-config", "docker-config"],
  ["buildkitd", "buildkitd"],
  ["registries-conf", "registries-conf"],
  ["containerd", "containerd"],
]);

/** What can have settings: a configuration, or the `.env` that every volume has. */
export type Configurable = ConfigurationName | "env";

const configurables: ReadonlyMap<string, Configurable> = new Map<string, Configurable>([
  ...configurationNames,
  ["env", "env"],
]);

/** The settings of one configuration. */
export interface ConfigurationSettings {
  /** Where the container mounts the volume. Files that name another file by its path need it. */
  readonly mountPath?: string;
  /** Whether the proxy also serves the registry's own name, so that images can be pulled under their own names. */
  readonly mirror?: boolean;
  /** The scheme for the tool to use, instead of the one that the proxy prefers. */
  readonly scheme?: "http" | "https";
}

/** The settings of each configuration that has any. */
export type ConfigurationParams = Readonly<Partial<Record<Configurable, ConfigurationSettings>>>;

/** The settings that each configuration accepts. */
const settingsOf: Readonly<Record<Configurable, readonly (keyof ConfigurationSettings)[]>> = {
  "docker-config": [],
  buildkitd: ["mountPath", "mirror", "scheme"],
  "registries-conf": ["mirror", "scheme"],
  // Its files hold no absolute path, so mountPath changes nothing here. It is accepted all the same.
  containerd: ["mountPath", "mirror", "scheme"],
  env: ["mountPath"],
};

interface Setting {
  readonly wanted: string;
  /** The checked value, or undefined where the value is invalid. */
  readonly read: (value: unknown) => string | boolean | undefined;
}

const settings: Readonly<Record<keyof ConfigurationSettings, Setting>> = {
  mountPath: {
    wanted: "an absolute path of letters, digits and . _ - /, such as /connector",
    read: (value) => (typeof value === "string" && absolutePath.test(value) ? value : undefined),
  },
  mirror: {
    wanted: "true or false",
    read: (value) => booleans.get(value),
  },
  scheme: {
    wanted: '"http" or "https"',
    read: (value) => (value === "http" || value === "https" ? value : undefined),
  },
};

/** The spellings of booleans. Existing manifests write them as text. */
const booleans: ReadonlyMap<unknown, boolean> = new Map<unknown, boolean>([
  [true, true],
  [false, false],
  ["true", true],
  ["false", false],
]);

const absolutePath = /^(\/[A-Za-z0-9_.-]+)+$/;
const path = "configuration.params";

/** Parses the volume attribute `configuration.params`: the JSON text of `{"<configuration>": {"<setting>": …}, …}`. */
export function parseConfigurationParams(text: string | undefined): Checked<ConfigurationParams> {
  if (text === undefined || text.trim() === "") return { ok: true, value: {} };
  const document = parseJson(text);
  if (!isObject(document)) {
    const wanted = `a JSON object such as {"buildkitd": {"mountPath": "/connector"}}`;
    return { ok: false, problems: [{ path, found: show(text), wanted }] };
  }
  const problems: Problem[] = [];
  const params: Partial<Record<Configurable, ConfigurationSettings>> = {};
  for (const [name, value] of Object.entries(document)) {
    const configuration = configurables.get(name);
    if (configuration === undefined) {
      const wanted = `one of ${[...configurables.keys()].join(", ")}`;
      problems.push({ path, found: show(name), wanted });
      continue;
    }
    params[configuration] = readSettings(configuration, value, `${path}.${name}`, problems);
  }
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: params };
}

function readSettings(
  configuration: Configurable,
  value: unknown,
  at: string,
  problems: Problem[],
): ConfigurationSettings {
  if (!isObject(value)) {
    problems.push({ path: at, found: show(value), wanted: "a JSON object of settings" });
    return {};
  }
  const read: Record<string, string | boolean> = {};
  for (const [name, given] of Object.entries(value)) {
    const known = settingsOf[configuration].find((setting) => setting === name);
    if (known === undefined) {
      const wanted = `settings of ${configuration}: ${settingsOf[configuration].join(", ") || "none"}`;
      problems.push({ path: at, found: show(name), wanted });
      continue;
    }
    const result = settings[known].read(given);
    if (result !== undefined) read[known] = result;
    else
      problems.push({ path: `${at}.${name}`, found: show(given), wanted: settings[known].wanted });
  }
  return read;
}

const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value);
