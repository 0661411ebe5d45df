import {
  type ConfigurationName,
  type ConfigurationParams,
  configurationNames,
  parseConfigurationParams,
} from "./configuration-params.ts";
import { type ConnectorRef, parseConnectorRef, showRef } from "./connector-ref.ts";
import { parseGoDurationSeconds } from "./duration.ts";
import { type Checked, type Problem, show } from "./problem.ts";
import { splitList } from "./setting-list.ts";

/** The checked `volumeAttributes` of a Pod's volume. */
export interface VolumeAttributes {
  readonly connectors: readonly [ConnectorRef, ...ConnectorRef[]];
  /** The configurations to add to the built-in files, each once. */
  readonly configurations: readonly ConfigurationName[];
  readonly params: ConfigurationParams;
  /** The files or folders to leave out. */
  readonly leaveOut: readonly string[];
  /** The lifetime of the volume's token, at least 600; undefined where the Pod leaves it to the driver. */
  readonly tokenLifetimeSeconds: number | undefined;
}

/** The start of the names of attributes that the kubelet adds. */
const kubeletPrefix = "csi.storage.k8s.io/";

const known = [
  "connectors",
  "connector.name",
  "connector.namespace",
  "configuration.names",
  "configuration.params",
  "token.expiration",
] as const;

const minLifetimeSeconds = 600;

/** All names go into one header of a request to the forward proxy, and many programs allow 16 KiB for it. */
const maxConnectors = 64;

/**
 * Parses `volumeAttributes`.
 * @param namespace the Pod's own namespace, for connectors that are named without one
 * @returns the attributes, or every problem with them
 */
export function parseVolumeAttributes(
  attributes: Readonly<Record<string, string>>,
  namespace: string,
): Checked<VolumeAttributes> {
  let problems: readonly Problem[] = unknownAttributes(attributes);
  const keep = <T>(checked: Checked<T>): T | undefined => {
    if (checked.ok) return checked.value;
    problems = [...problems, ...checked.problems];
    return undefined;
  };
  const connectors = keep(parseConnectors(attributes, namespace));
  const names = keep(parseNames(attributes["configuration.names"] ?? ""));
  const params = keep(parseConfigurationParams(attributes["configuration.params"]));
  const tokenLifetimeSeconds = keep(parseLifetimeSeconds(attributes["token.expiration"]));
  const [first, ...others] = connectors ?? [];
  if (first === undefined || !names || !params || problems.length > 0) {
    return { ok: false, problems };
  }
  return {
    ok: true,
    value: {
      connectors: [first, ...others],
      ...names,
      params,
      tokenLifetimeSeconds,
    },
  };
}

/** Unknown attributes are problems, since a misspelt one would be ignored. Their values are not shown. */
const unknownAttributes = (attributes: Readonly<Record<string, string>>): readonly Problem[] =>
  Object.keys(attributes)
    .filter((name) => !name.startsWith(kubeletPrefix) && !known.some((other) => other === name))
    .map((name) => ({
      path: "volumeAttributes",
      found: show(name),
      wanted: `one of ${known.join(", ")}`,
    }));

function parseConnectors(
  attributes: Readonly<Record<string, string>>,
  namespace: string,
): Checked<readonly ConnectorRef[]> {
  const listed = splitList(attributes.connectors ?? "");
  if (listed.length === 0) return parseDeprecatedConnector(attributes, namespace);
  if (listed.length > maxConnectors) {
    const wanted = `at most ${maxConnectors} connectors in one volume`;
    return { ok: false, problems: [{ path: "connectors", found: `${listed.length}`, wanted }] };
  }
  const parsed = listed.map((text) => parseConnectorRef(text, namespace, "connectors"));
  const problems = parsed.flatMap((result) => (result.ok ? [] : result.problems));
  if (problems.length > 0) return { ok: false, problems };
  const refs = parsed.flatMap((result) => (result.ok ? [result.value] : []));
  return { ok: true, value: uniqueBy(refs, showRef) };
}

/** Parses the deprecated spelling: one connector, in two attributes of its own. Manifests leave the namespace empty. */
function parseDeprecatedConnector(
  attributes: Readonly<Record<string, string>>,
  podNamespace: string,
): Checked<readonly ConnectorRef[]> {
  const name = attributes["connector.name"]?.trim();
  if (!name) {
    const wanted = "the connectors to use: <name> or <namespace>/<name>, separated by commas";
    return { ok: false, problems: [{ path: "connectors", found: "nothing", wanted }] };
  }
  const namespace = attributes["connector.namespace"]?.trim() || podNamespace;
  const text = name.includes("/") ? name : `${namespace}/${name}`;
  const ref = parseConnectorRef(text, podNamespace, "connector.name");
  return ref.ok ? { ok: true, value: [ref.value] } : ref;
}

const fileName = /^[A-Za-z0-9._:[\]-]+(\/[A-Za-z0-9._:[\]-]+)*$/;

function parseNames(text: string): Checked<Pick<VolumeAttributes, "configurations" | "leaveOut">> {
  const problems: Problem[] = [];
  const path = "configuration.names";
  const configurations = new Set<ConfigurationName>();
  const leaveOut: string[] = [];
  for (const entry of splitList(text)) {
    const configuration = configurationNames.get(entry);
    if (configuration !== undefined) configurations.add(configuration);
    else if (entry.startsWith("!") && fileName.test(entry.slice(1))) leaveOut.push(entry.slice(1));
    else {
      const wanted = `one of ${[...configurationNames.keys()].join(", ")}, or !<file> to leave a file out`;
      problems.push({ path, found: show(entry), wanted });
    }
  }
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, value: { configurations: [...configurations], leaveOut } };
}

function parseLifetimeSeconds(text: string | undefined): Checked<number | undefined> {
  if (text === undefined || text === "") return { ok: true, value: undefined };
  const seconds = parseGoDurationSeconds(text);
  if (seconds !== undefined && seconds >= minLifetimeSeconds && seconds < 2 ** 31) {
    return { ok: true, value: Math.floor(seconds) };
  }
  const wanted = "a duration of at least 10m, such as 30m or 1h30m";
  return { ok: false, problems: [{ path: "token.expiration", found: show(text), wanted }] };
}

const uniqueBy = <T>(items: readonly T[], key: (item: T) => string): readonly T[] => [
  ...new Map(items.map((item) => [key(item), item])).values(),
];
