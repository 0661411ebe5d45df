/** A CI host with the standalone mode on it, as a real process that is driven by the real command line. */
import { chmod, chown, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { cleanup, type Stoppable } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../support/plain-request.ts";
import { type Outcome, type RunningProgram, runProgram, startProgram } from "../support/program.ts";
import { type Finding, searchSecrets } from "../support/secrets-search.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { mountsBelow, removeMounts } from "./mount-table.ts";

/** Starts a program of ours in half the time, and is removed with the test run. */
const compileCache = makeTempFolder("compile-cache").path;

/** Where coverage is counted, it is counted of the processes, too. */
const environment: Readonly<Record<string, string>> = {
  NODE_COMPILE_CACHE: compileCache,
  ...(process.env.NODE_V8_COVERAGE && { NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE }),
};

const main: string = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

const bootsScript: string = fileURLToPath(new URL("boots.ts", import.meta.url));

/** Runs the command line to its end. */
export const runCommand = (
  args: readonly string[],
  options: { readonly cwd?: string; readonly uid?: number } = {},
): Promise<Outcome> =>
  runProgram(process.execPath, [main, ...args], { ...options, env: environment });

export interface CiHostOptions {
  /** More arguments of the process. */
  readonly args?: readonly string[];
  /** Before its script: `--import=…`. */
  readonly nodeArgs?: readonly string[];
  /** More environment variables of the process. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface CiHost extends Stoppable {
  /** All of it lies here. */
  readonly folder: string;
  readonly state: string;
  /** The folder of YAML. */
  readonly connectors: string;
  /** `127.0.0.1:34567`, the same after a restart. */
  readonly http: string;
  readonly https: string;
  /** The process that runs now, or ran last. */
  program(): RunningProgram;
  /**
   * Starts a process where none runs, and waits until it is ready.
   * @param stderr a path that is its stderr, from the second process on; `logged` does not see those lines
   */
  start(stderr?: string): Promise<RunningProgram>;
  /** As an operator who has lost patience: no handler runs. */
  kill(): Promise<void>;
  /** As a power cut does: the process and all mounts are gone, and so is all in `/run`. Then a process starts. */
  reboot(): Promise<void>;
  /** Replaces a file of YAML as editors do, by a rename. */
  write(file: string, yaml: string): Promise<void>;
  remove(file: string): Promise<void>;
  /** Runs the command line against this host's state folder, from `folder`, to its end. */
  run(command: string, ...args: readonly string[]): Promise<Outcome>;
  /** Runs the command line as another user, from `folder`, to its end. */
  runAs(uid: number, command: string, ...args: readonly string[]): Promise<Outcome>;
  /** Starts `run` with these arguments, from `folder`. */
  startJob(
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
    uid?: number,
  ): Promise<RunningProgram>;
  /** Makes a folder in `folder` that belongs to a user. */
  makeHome(uid: number): Promise<string>;
  /** Mounts a volume, and reads what is in it. Fails where that fails. */
  mount(name: string, connectors: string, ...args: readonly string[]): Promise<Volume>;
  unmount(name: string): Promise<void>;
  /** The status of a pull of `app:1` by `team-a/hub` with a token. */
  pullWith(token: string): Promise<number>;
  /** Lines of the log, of all processes so far, with all of these texts in them. */
  logged(...texts: readonly string[]): readonly string[];
  /** Waits until such a line is there. */
  waitForLog(...texts: readonly string[]): Promise<void>;
  /** Keeps what somebody saw, for `leaks`. */
  saw(what: string, text: string | Buffer): void;
  /** Keeps what nobody may see: what a registry and this host share. */
  keepSecret(name: string, value: string): void;
  /** Secrets that were seen in a log, an output, a command line, a volume or the state folder. */
  leaks(): Promise<readonly Finding[]>;
  stop(): Promise<void>;
}

/** A mounted volume, as it was when it was mounted. */
export interface Volume {
  readonly path: string;
  readonly token: string;
  read(file: string): Promise<string>;
  /** A registry request with this volume's token: `request("GET", "team-a/hub", "app/tags/list")`. */
  request(
    method: string,
    connector: string,
    path: string,
    options?: PlainRequestOptions & { readonly scheme?: "http" | "https" },
  ): Promise<PlainResponse>;
}

/** Starts a process over an empty folder. */
export async function startCiHost(options: CiHostOptions = {}): Promise<CiHost> {
  const resources = cleanup();
  const folder = resources.add(makeTempFolder("host")).path;
  resources.defer(() => removeMounts(folder));
  const host = createHost(folder, options, resources);
  try {
    await mkdir(host.connectors);
    await writeBootId(folder, 1);
    await host.start();
    return host;
  } catch (error) {
    await resources.stop();
    throw error;
  }
}

const writeBootId = (folder: string, boot: number): Promise<void> =>
  writeFile(join(folder, "boot-id"), `boot-${boot}\n`);

function createHost(
  folder: string,
  { args = [], nodeArgs = [], env = {} }: CiHostOptions,
  resources: ReturnType<typeof cleanup>,
): CiHost {
  const connectors = join(folder, "connectors");
  const state = join(folder, "state");
  const runFolder = join(folder, "run");
  const programs: RunningProgram[] = [];
  const seen: [what: string, text: string | Buffer][] = [];
  const secrets: Record<string, string> = {};
  const tokens: Record<string, string> = {};
  let boots = 1;
  let http = "127.0.0.1:0";
  let https = "127.0.0.1:0";

  const processEnv = { ...environment, TEST_BOOT_ID: join(folder, "boot-id"), ...env };
  const program = (): RunningProgram => {
    const last = programs.at(-1);
    if (last === undefined) throw new Error("no process was started");
    return last;
  };
  const log = (): string => programs.map(({ output }) => output()).join("");
  const logged = (...texts: readonly string[]): readonly string[] =>
    log()
      .split("\n")
      .filter((line) => texts.every((text) => line.includes(text)));

  const host: CiHost = {
    folder,
    state,
    connectors,
    program,
    get http() {
      return http;
    },
    get https() {
      return https;
    },
    async start(stderr) {
      const commandLine = [
        `--import=${bootsScript}`,
        ...nodeArgs,
        main,
        "standalone",
        "--connectors",
        connectors,
        "--state",
        state,
        "--run-folder",
        runFolder,
        "--listen",
        `http://${http}`,
        "--listen",
        `https://${https}`,
        ...args,
      ];
      const started =
        stderr === undefined
          ? await startProgram(process.execPath, commandLine, { env: processEnv })
          : await startProgram(
              "sh",
              ["-c", 'exec "$@" 2<>"$0"', stderr, process.execPath, ...commandLine],
              { env: processEnv },
            );
      resources.add(started);
      programs.push(started);
      if (stderr !== undefined) {
        await waitForListener(`http://${http}/`);
        return started;
      }
      const [, line = "{}"] = await started.waitFor(/^(.*"message":"ready".*)$/m);
      const { address }: { address: string } = JSON.parse(line);
      const hostOf = (scheme: string): string =>
        new RegExp(`\\b${scheme}://(\\S+)`).exec(address)?.[1] ?? "none";
      http = hostOf("http");
      https = hostOf("https");
      return started;
    },
    async kill() {
      // The process alone: a mount(8) that it has started runs on.
      process.kill(program().pid, "SIGKILL");
      await program().ended;
    },
    async reboot() {
      await host.kill();
      await removeMounts(folder);
      await rm(runFolder, { recursive: true, force: true });
      boots += 1;
      await writeBootId(folder, boots);
      await host.start();
    },
    async write(file, yaml) {
      const path = join(connectors, file);
      await writeFile(`${path}.new`, yaml, { mode: 0o600 });
      await rename(`${path}.new`, path);
    },
    remove: (file) => rm(join(connectors, file)),
    async run(command, ...commandLine) {
      const args = [command, "--state", state, ...commandLine];
      const outcome = await runCommand(args, { cwd: folder });
      seen.push([args.join(" "), outcome.stdout + outcome.stderr]);
      return outcome;
    },
    async runAs(uid, command, ...commandLine) {
      const args = [command, "--run-folder", runFolder, ...commandLine];
      const outcome = await runCommand(args, { cwd: folder, uid });
      seen.push([args.join(" "), outcome.stdout + outcome.stderr]);
      return outcome;
    },
    async startJob(jobArgs, jobEnv = {}, uid = 0) {
      const env = { ...environment, ...jobEnv };
      const place = uid === 0 ? ["--state", state] : ["--run-folder", runFolder];
      const options = uid === 0 ? { env, cwd: folder } : { env, cwd: folder, uid };
      const job = await startProgram(
        process.execPath,
        [main, "run", ...place, ...jobArgs],
        options,
      );
      return resources.add(job);
    },
    async makeHome(uid) {
      const home = join(folder, `home-${uid}`);
      await mkdir(home);
      await chown(home, uid, uid);
      await chmod(folder, 0o711);
      return home;
    },
    async mount(name, opened, ...more) {
      const path = resolve(folder, name);
      const { status, stderr } = await host.run("mount", path, "--connectors", opened, ...more);
      expect({ status, stderr }).to.deep.equal({ status: 0, stderr: "" });
      const read = (file: string): Promise<string> => readFile(join(path, file), "utf8");
      const token = await read("context.token");
      tokens[`token ${Object.keys(tokens).length} of ${name}`] = token;
      return { path, token, read, request: requestWith(host, token, seen) };
    },
    async unmount(name) {
      const { status, stderr } = await host.run("unmount", resolve(folder, name));
      expect({ status, stderr }).to.deep.equal({ status: 0, stderr: "" });
    },
    async pullWith(token) {
      const path = "/v2/namespaces/team-a/connectors/hub/app/manifests/1";
      const headers = { authorization: `Bearer ${token}` };
      return (await plainRequest(`http://${http}${path}`, { headers })).status;
    },
    logged,
    async waitForLog(...texts) {
      await eventually(
        () => logged(...texts).length > 0,
        () => `no line with ${texts.join(", ")} in\n${log()}`,
      );
    },
    saw: (what, text) => void seen.push([what, text]),
    keepSecret(name, value) {
      secrets[name] = value;
    },
    async leaks() {
      const volumes = (await mountsBelow(folder)).map(({ path }) => path);
      const numbered = seen.map(([what, text], index) => [`${index}: ${what}`, text]);
      const outputs = { log: log(), ...Object.fromEntries(numbered) };
      const places = { outputs, processes: true };
      return [
        ...(await searchSecrets({ ...places, secrets, folders: [state, ...volumes] })),
        ...(await searchSecrets({ ...places, secrets: tokens, folders: [state] })),
      ];
    },
    stop: resources.stop,
  };
  return host;
}

const waitForListener = (url: string): Promise<unknown> =>
  eventually(
    () =>
      plainRequest(url).then(
        () => true,
        () => false,
      ),
    () => `nothing answers at ${url}`,
    20_000,
  );

const requestWith =
  (host: CiHost, token: string, seen: [string, string | Buffer][]): Volume["request"] =>
  async (method, connector, path, { scheme = "http", ...options } = {}) => {
    const [namespace, name] = connector.split("/");
    const base = `/v2/namespaces/${namespace}/connectors/${name}/`;
    const origin = `${scheme}://${host[scheme]}`;
    const inside = path.startsWith(`${origin}/`) ? path.slice(origin.length) : path;
    const response = await plainRequest(`${origin}/`, {
      target: inside.startsWith("/") ? inside : base + inside,
      ...options,
      method,
      headers: {
        authorization: `Basic ${Buffer.from(`any:${token}`).toString("base64")}`,
        ...options.headers,
      },
    });
    seen.push([`${method} ${path} (head)`, response.rawHeaders.join("\n")]);
    seen.push([`${method} ${path}`, response.body]);
    return response;
  };
