/**
 * The whole idea on one machine, with real parts: `npm run demo`.
 *
 * A registry that demands a login, a connector that knows it, a mounted volume, and skopeo and
 * buildah that pull, build and push with nothing but that volume. `npm run demo -- --keep` leaves it
 * all running, to play with.
 */
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";
import { requirePrograms } from "../../tools/require-programs.ts";
import { isListening, prepareRegistry, waitForPort } from "./registry.ts";
import { createShell, type Shell } from "./shell.ts";
import { tellStory } from "./story.ts";
import type { Login } from "./token-server.ts";

const programs = ["skopeo", "buildah", "runc", "docker-registry", "busybox", "curl", "mount"];
const ports = { registry: 5010, token: 5011, http: 5080, https: 5443 };
const project = fileURLToPath(new URL("../..", import.meta.url));

await main(process.argv.includes("--keep")).catch((error: Error) => {
  process.stderr.write(`\ndemo: ${error.message}\n`);
  process.exitCode = 1;
});

async function main(keep: boolean): Promise<void> {
  await requirePrograms(programs);
  await checkMachine();
  const demo = await mkdtemp(join(tmpdir(), "oci-connector-demo-"));
  const env = await prepareTools(demo);
  const shell = createShell({ cwd: project, env, abbreviations: { [demo]: "$DEMO" } });
  const undo: (() => Promise<unknown>)[] = [() => rm(demo, { recursive: true, force: true })];
  const interrupted = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      shell.interrupt();
      interrupted.resolve();
    });
  }
  try {
    undo.push(shell.stop);
    const login = await prepareConnectors(demo);
    const registry = {
      folder: join(demo, "registry"),
      port: ports.registry,
      tokenPort: ports.token,
    };
    const { configFile, tokenServer } = await prepareRegistry({ ...registry, login });
    undo.push(tokenServer.stop, () => unmount(shell));
    shell.background(`docker-registry serve ${configFile} > $DEMO/registry.log 2>&1`, {
      silent: true,
    });
    await waitForPort(ports.registry);
    await tellStory(shell, { login, httpsPort: ports.https });
    if (keep) await stay(shell, env, interrupted.promise);
  } finally {
    for (const action of undo.reverse()) await action();
  }
  shell.say("Everything is stopped and removed.");
}

async function checkMachine(): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new Error("a volume is a mount, and mounting needs root: run it with sudo");
  }
  for (const port of Object.values(ports)) {
    if (await isListening(port)) throw new Error(`port ${port} is in use, and the demo needs it`);
  }
}

/** Settings that keep the tools away from the machine's own images, logins and configuration. */
async function prepareTools(demo: string): Promise<Readonly<Record<string, string>>> {
  const settings = join(demo, "home", ".config", "containers");
  await mkdir(settings, { recursive: true });
  await mkdir(join(demo, "bin"));
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

/** Copies the example's connectors, and reads the login out of them: the demo's registry has to know it. */
async function prepareConnectors(demo: string): Promise<Login> {
  await cp(fileURLToPath(new URL("connectors", import.meta.url)), join(demo, "connectors"), {
    recursive: true,
  });
  const file = join(demo, "connectors", "team-a.yaml");
  await chmod(file, 0o600);
  const [, secret] = parseAllDocuments(await readFile(file, "utf8"));
  const { username: user, password } = secret?.toJS().stringData ?? {};
  return { user, password };
}

/** Whatever happened before: by the process that keeps the volume, or, where that is gone, by hand. */
async function unmount(shell: Shell): Promise<void> {
  const line =
    "oci-connector unmount --state $DEMO/state $VOLUME || umount $VOLUME || ! mountpoint -q $VOLUME";
  await shell.run(line, { silent: true, fails: "maybe" });
}

/** Mounts the volume anew, and says how to use it from another terminal. */
async function stay(
  { say, run }: Shell,
  env: Readonly<Record<string, string>>,
  interrupted: Promise<void>,
): Promise<void> {
  await run("oci-connector mount --state $DEMO/state --connectors team-a/registry $VOLUME", {
    silent: true,
  });
  const lines = Object.entries(env).map(([name, value]) => `export ${name}='${value}'\n`);
  await writeFile(`${env.DEMO}/env`, lines.join(""));
  say(
    "\nAll of it goes on until you press Ctrl-C, the volume mounted anew. In another terminal:\n",
  );
  say(`    . ${env.DEMO}/env   # then every command above works as it is shown\n`);
  await interrupted;
}
