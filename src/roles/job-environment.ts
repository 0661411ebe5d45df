import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type JsonMap, parse, stringify } from "@iarna/toml";
import type { Environment } from "../config/cluster-settings.ts";
import { trustedFiles } from "../connector/volume-files.ts";
import { unless } from "../error-code.ts";

/** What the environment of a job's command is made of. */
export interface JobEnvironmentOptions {
  /** The environment of `run` itself. */
  readonly environment: Environment;
  /** The folder of the volume, which is read-only. */
  readonly volume: string;
  /** A folder of this job alone, for what tools write and for files that join the caller's own with the volume's. */
  readonly ownFolder: string;
  /** Whether the variables of the forward proxy are set. */
  readonly usesForwardProxy: boolean;
}

/**
 * The environment of a job's command: that of `run`, with the variables by which tools find the volume's files. What the
 * caller's variables name is joined with the volume's where both are needed: certificates to trust, and the registries
 * of containers/image.
 * @throws Error where the volume has no `.env` and the forward proxy is wanted
 */
export async function createJobEnvironment(options: JobEnvironmentOptions): Promise<Environment> {
  const { environment, volume, usesForwardProxy } = options;
  const address = (await readText(join(volume, "connector.status.proxyAddress"))) ?? "";
  return {
    ...environment,
    OCI_CONNECTOR_VOLUME: volume,
    OCI_CONNECTOR_IMAGES: address.replace(/^https?:\/\//, ""),
    ...(await loginVariables(options)),
    ...(await registriesVariables(options)),
    ...(await buildkitVariables(options)),
    ...(await trustVariables(options)),
    ...(usesForwardProxy ? await proxyVariables(options) : {}),
  };
}

/** @returns undefined where there is no such file */
const readText = (path: string): Promise<string | undefined> =>
  readFile(path, "utf8").catch(unless(undefined, "ENOENT", "ENOTDIR"));

const isThere = async (path: string): Promise<boolean> => (await readText(path)) !== undefined;

async function loginVariables({ volume }: JobEnvironmentOptions): Promise<Environment> {
  const file = join(volume, "config.json");
  return (await isThere(file)) ? { DOCKER_CONFIG: volume, REGISTRY_AUTH_FILE: file } : {};
}

/**
 * `CONTAINERS_REGISTRIES_CONF` takes the place of the machine's file (containers-registries.conf(5)), which says where
 * short names are searched for. So the command gets a file with both.
 */
async function registriesVariables(options: JobEnvironmentOptions): Promise<Environment> {
  const { environment, volume, ownFolder } = options;
  const file = join(volume, "registries.conf");
  const own = await readText(file);
  if (own === undefined) return {};
  const inHome = join(environment.HOME ?? "/", ".config/containers/registries.conf");
  const places = [
    environment.CONTAINERS_REGISTRIES_CONF ?? "",
    inHome,
    "/etc/containers/registries.conf",
  ];
  for (const place of places.filter((path) => path !== "")) {
    // A HOME of another user is passed over, as containers/image does.
    const passedOver = place === inHome ? ["EACCES"] : [];
    const text = await readText(place).catch(unless(undefined, ...passedOver));
    if (text === undefined) continue;
    const joined = join(ownFolder, "registries.conf");
    await writeFile(joined, joinRegistries(text, own, place));
    return { CONTAINERS_REGISTRIES_CONF: joined };
  }
  return { CONTAINERS_REGISTRIES_CONF: file };
}

/**
 * The volume's registries and the machine's, which give way where both have one of the same name.
 * @param place the path of the machine's file, for messages
 * @throws Error where the machine's file is none of version 2
 */
function joinRegistries(machineText: string, volumeText: string, place: string): string {
  const wanted = `${place}: wanted TOML in version 2 of registries.conf, as podman and buildah do: mend it, or name another file by CONTAINERS_REGISTRIES_CONF`;
  let machine: JsonMap;
  try {
    machine = parse(machineText);
  } catch (error) {
    throw new Error(wanted, { cause: error });
  }
  if ("registries" in machine) throw new Error(wanted);
  const registriesOf = ({ registry }: JsonMap): readonly JsonMap[] =>
    Array.isArray(registry) ? (registry as JsonMap[]) : [];
  const nameOf = ({ prefix, location }: JsonMap): unknown => prefix ?? location;
  const own = registriesOf(parse(volumeText));
  const names = new Set(own.map(nameOf));
  const others = registriesOf(machine).filter((registry) => !names.has(nameOf(registry)));
  return stringify({ ...machine, registry: [...others, ...own] });
}

/**
 * buildx keeps its builders in a folder that is the docker config's own unless it is named, and makes new ones by a
 * `buildkitd.default.toml` in it. `buildctl-daemonless.sh` starts buildkitd with `BUILDKITD_FLAGS`.
 */
async function buildkitVariables(options: JobEnvironmentOptions): Promise<Environment> {
  const { environment, volume, ownFolder } = options;
  const buildx = join(ownFolder, "buildx");
  await mkdir(buildx, { mode: 0o700 });
  const folder = environment.BUILDX_CONFIG ? {} : { BUILDX_CONFIG: buildx };
  const file = join(volume, "buildkitd.toml");
  if (!(await isThere(file))) return folder;
  await symlink(file, join(buildx, "buildkitd.default.toml"));
  const flags = environment.BUILDKITD_FLAGS ?? "";
  return { ...folder, BUILDKITD_FLAGS: `${flags} --config ${file}`.trimStart() };
}

/** The variables by which tools find certificates. A file that the caller has named is trusted beside the volume's. */
async function trustVariables(options: JobEnvironmentOptions): Promise<Environment> {
  const { environment, volume, ownFolder } = options;
  const variables: Record<string, string> = {};
  for (const [name, file] of trustedFiles) {
    const own = await readText(join(volume, file));
    if (own === undefined) continue;
    const given = environment[name];
    const callers = given ? await readText(given) : undefined;
    if (callers === undefined) variables[name] = join(volume, file);
    else {
      variables[name] = join(ownFolder, `${name}.crt`);
      await writeFile(variables[name], `${callers.trimEnd()}\n${own}`);
    }
  }
  return variables;
}

/** The variables of the forward proxy. Hosts that the caller reaches directly stay so. */
async function proxyVariables({
  environment,
  volume,
}: JobEnvironmentOptions): Promise<Environment> {
  const text = await readText(join(volume, ".env"));
  if (text === undefined) {
    throw new Error('--forward: the volume has no .env: leave "!.env" out of --configuration');
  }
  const lines = text.split("\n").map((line) => /^([a-z_]+_proxy)=(.*)$/i.exec(line) ?? []);
  const variables: Record<string, string> = {};
  for (const [, name, value = ""] of lines) if (name !== undefined) variables[name] = value;
  const direct = environment.no_proxy || environment.NO_PROXY;
  for (const name of ["no_proxy", "NO_PROXY"]) {
    if (direct) variables[name] = `${variables[name]},${direct}`;
  }
  return variables;
}
