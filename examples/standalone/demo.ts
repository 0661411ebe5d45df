/**
 * The whole idea on one machine, with real parts: `npm run demo`.
 *
 * A registry that demands a login, a connector that knows it, a mounted volume, and skopeo and
 * buildah that pull, build and push with nothing but that volume.
 *
 *     npm run demo -- --keep     leaves it all running, to play with, until Ctrl-C
 *     npm run demo -- --ports 6010,6011,6080,6443
 *                                other ports than 5010 (registry), 5011 (its token server), 5080 and
 *                                5443 (the proxy's HTTP and TLS)
 *
 * However it ends, it leaves no process, mount or file. The status is 0 where the story was told to
 * its end, 1 where something failed, and 128 and the signal's number where a signal came before.
 */
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readFile, realpath, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseAllDocuments } from "yaml";
import { requirePrograms } from "../../tools/require-programs.ts";
import { catchInterruption, Interrupted } from "./interruption.ts";
import { isListening, prepareRegistry, waitForPort } from "./registry.ts";
import { removeFolder } from "./remove-folder.ts";
import { createShell, type Shell } from "./shell.ts";
import { mountCommand, type Ports, tellStory } from "./story.ts";
import type { Login } from "./token-server.ts";

const programs = [
  "skopeo",
  "buildah",
  "runc",
  "docker-registry",
  "busybox",
  "curl",
  "mount",
  "umount",
  "setpriv",
];
const defaultPorts: Ports = { registry: 5010, token: 5011, http: 5080, https: 5443 };
const project = fileURLToPath(new URL("../..", import.meta.url));

/** What a terminal may have set, and what would lead the tools of the demo elsewhere. */
const foreignVariables = [
  "http_proxy",
  "https_proxy",
  "all_proxy",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "ALL_PROXY",
  "REGISTRY_AUTH_FILE",
  "DOCKER_CONFIG",
  "CONTAINERS_REGISTRIES_CONF",
  "STORAGE_DRIVER",
  "XDG_CONFIG_HOME",
  "XDG_RUNTIME_DIR",
];

interface Settings {
  readonly keep: boolean;
  readonly ports: Ports;
}

/** Ends something that was started. */
type Undo = () => Promise<unknown>;

// A status that is given ends the process, whatever is still open in it.
process.exit(
  await main(process.argv.slice(2)).catch((error: Error) => {
    process.stderr.write(`\ndemo: ${error.message}\n`);
    return 1;
  }),
);

/** @returns the exit status @throws where the demo can't begin, or something of it is left */
async function main(args: readonly string[]): Promise<number> {
  const settings = readSettings(args);
  await requirePrograms(programs);
  await checkMachine(settings.ports);
  const interruption = catchInterruption();
  const undo: Undo[] = [];
  const failure = await play(settings, interruption, undo).catch((error: Error) => error);
  const left = await undoAll(undo);
  if (left.length > 0) throw new Error([failure?.message ?? [], left].flat().join("\n"));
  if (failure === undefined) {
    process.stdout.write("\nEverything is stopped and removed.\n");
    return 0;
  }
  if (failure instanceof Interrupted) {
    process.stderr.write(`\ndemo: ${failure.message}: everything is stopped and removed.\n`);
    return failure.status;
  }
  throw failure;
}

/** @throws where the command line is wrong */
function readSettings(args: readonly string[]): Settings {
  const options = { keep: { type: "boolean" }, ports: { type: "string" } } as const;
  const { keep = false, ports } = parseArgs({ args: [...args], options }).values;
  return { keep, ports: ports === undefined ? defaultPorts : readPorts(ports) };
}

function readPorts(text: string): Ports {
  const numbers = text.split(",").map(Number);
  const isPort = (value: number): boolean => Number.isInteger(value) && value > 0 && value < 65536;
  const [registry, token, http, https] = numbers;
  const areFour = numbers.length === 4 && new Set(numbers).size === 4 && numbers.every(isPort);
  if (!areFour || !registry || !token || !http || !https) {
    const wanted = "four different ports (registry, its token server, HTTP, TLS)";
    throw new Error(`--ports wants ${wanted} such as 5010,5011,5080,5443, and not "${text}"`);
  }
  return { registry, token, http, https };
}

/** @throws Interrupted where a signal comes before the end of the story */
async function play(
  { keep, ports }: Settings,
  interruption: AbortSignal,
  undo: Undo[],
): Promise<void> {
  const demo = await realpath(await mkdtemp(join(tmpdir(), "oci-connector-demo-")));
  undo.push(() => removeFolder(demo));
  const env = await prepareTools(demo, ports);
  const shell = createShell({ cwd: demo, env, abbreviations: { [demo]: "$DEMO" }, interruption });
  undo.push(shell.stop);
  const login = await prepareConnectors(demo, ports);
  const registry = {
    folder: join(demo, "registry"),
    port: ports.registry,
    tokenPort: ports.token,
  };
  const { configFile, tokenServer } = await prepareRegistry({ ...registry, login });
  undo.push(tokenServer.stop);
  shell.background(`docker-registry serve ${configFile} > $DEMO/registry.log 2>&1`, {
    silent: true,
  });
  await waitForPort(ports.registry, interruption);
  await tellStory(shell, { login, ports, interruption });
  if (keep) await stay(shell, env, interruption);
}

/** Everything in reverse order, also where something fails. @returns what is left */
async function undoAll(undo: readonly Undo[]): Promise<readonly string[]> {
  const left: string[] = [];
  for (const action of undo.toReversed()) {
    await action().catch((error: Error) => left.push(error.message));
  }
  return left;
}

async function checkMachine(ports: Ports): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new Error("a volume is a mount, and mounting needs root: run it with sudo");
  }
  for (const port of Object.values(ports)) {
    if (await isListening(port)) {
      throw new Error(`port ${port} is in use: end what listens there, or name others by --ports`);
    }
  }
}

/** Settings that keep the tools away from the machine's own images, logins and configuration. */
async function prepareTools(demo: string, ports: Ports): Promise<Readonly<Record<string, string>>> {
  const settings = join(demo, "home", ".config", "containers");
  await mkdir(settings, { recursive: true });
  await mkdir(join(demo, "bin"));
  await mkdir(join(demo, "tmp"));
  const files = {
    [join(settings, "policy.json")]: '{"default": [{"type": "insecureAcceptAnything"}]}',
    [join(settings, "registries.conf")]: "",
    [join(settings, "containers.conf")]: '[engine]\nruntime = "runc"\n',
    [join(settings, "storage.conf")]:
      `[storage]\ndriver = "vfs"\ngraphroot = "${demo}/images"\nrunroot = "${demo}/run"\n`,
    [join(demo, "bin", "oci-connector")]:
      `#!/bin/sh\nexec '${process.execPath}' '${join(project, "src", "main.ts")}' "$@"\n`,
  };
  for (const [path, content] of Object.entries(files)) await writeFile(path, content);
  await chmod(join(demo, "bin", "oci-connector"), 0o755);
  const prefix = "namespaces/team-a/connectors/registry";
  return {
    PATH: `${join(demo, "bin")}:${process.env.PATH}:/usr/local/sbin:/usr/sbin:/sbin`,
    HOME: join(demo, "home"),
    TMPDIR: join(demo, "tmp"),
    CONTAINERS_CONF: join(settings, "containers.conf"),
    CONTAINERS_STORAGE_CONF: join(settings, "storage.conf"),
    BUILDAH_ISOLATION: "chroot",
    DEMO: demo,
    VOLUME: join(demo, "volume"),
    CERTS: join(demo, "volume", "certs.d", `127.0.0.1:${ports.https}`),
    HTTPS: `127.0.0.1:${ports.https}/${prefix}`,
    HTTP: `127.0.0.1:${ports.http}/${prefix}`,
  };
}

/**
 * Copies the example's connectors and the application that is built, and reads the login out of the
 * connectors: the demo's registry has to know it.
 */
async function prepareConnectors(demo: string, ports: Ports): Promise<Login> {
  const here = fileURLToPath(new URL(".", import.meta.url));
  await cp(join(here, "app"), join(demo, "app"), { recursive: true });
  await cp(join(here, "connectors"), join(demo, "connectors"), { recursive: true });
  const file = join(demo, "connectors", "team-a.yaml");
  const yaml = await readFile(file, "utf8");
  await writeFile(
    file,
    yaml.replace(`localhost:${defaultPorts.registry}`, `localhost:${ports.registry}`),
  );
  await chmod(file, 0o600);
  const [, secret] = parseAllDocuments(yaml);
  const { username: user, password } = secret?.toJS().stringData ?? {};
  return { user, password };
}

/** Mounts the volume anew, says how to use it from another terminal, and waits for the interruption. */
async function stay(
  { say, run }: Shell,
  env: Readonly<Record<string, string>>,
  interruption: AbortSignal,
): Promise<void> {
  await run(mountCommand, { silent: true });
  const quoted = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`;
  const lines = Object.entries(env).map(([name, value]) => `export ${name}=${quoted(value)}\n`);
  await writeFile(`${env.DEMO}/env`, `unset ${foreignVariables.join(" ")}\n${lines.join("")}`);
  say("\nAll of it goes on until you press Ctrl-C, the volume mounted anew.");
  say("In another terminal, as root:\n");
  say(`    . ${env.DEMO}/env\n`);
  say("Then every command above works as it is shown. (The process of step 3 still runs.)\n");
  if (!interruption.aborted) await once(interruption, "abort");
}
