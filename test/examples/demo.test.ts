/** How the demo ends, and that a kept one is what it promises: real processes, a real terminal. */
import { randomInt } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { isListening } from "../../examples/standalone/registry.ts";
import type { Shell } from "../../examples/standalone/shell.ts";
import { mountCommand, type Ports, tellStory } from "../../examples/standalone/story.ts";
import { requirePrograms } from "../../tools/require-programs.ts";
import { mountsBelow, removeMounts } from "../roles/mount-table.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type RunningProgram, runProgram, startProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

const project: string = fileURLToPath(new URL("../..", import.meta.url));
const script: string = join(project, "examples", "standalone", "demo.ts");
const ctrlC = "\u0003";

/** What a demo has on the machine. */
interface Traces {
  /** Its folders in the folder of temporary files. */
  readonly folders: readonly string[];
  readonly mounts: readonly string[];
  /** Command lines. */
  readonly processes: readonly string[];
  readonly listening: readonly number[];
}

const nothing: Traces = { folders: [], mounts: [], processes: [], listening: [] };

describe("the demo", function () {
  this.timeout(60_000);
  const resources = cleanup();
  /** Of temporary files, and in the environment of all that the demo starts. */
  let folder: string;
  let ports: Ports;

  before(() => requirePrograms(["script"]));
  beforeEach(async () => {
    folder = resources.add(makeTempFolder("demo-test")).path;
    resources.defer(() => removeMounts(folder));
    const [registry, token, http, https] = await freePorts();
    ports = { registry, token, http, https };
  });
  afterEach(resources.stop);

  const environment = (): Readonly<Record<string, string>> => ({
    TMPDIR: folder,
    ...(process.env.NODE_V8_COVERAGE && { NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE }),
  });
  const portsOption = (): string => `--ports=${Object.values(ports).join(",")}`;
  /** The process alone, as a CI system starts it. */
  const startDemo = async (): Promise<RunningProgram> =>
    resources.add(
      await startProgram(process.execPath, [script, portsOption()], { env: environment() }),
    );
  /** As a person does: by npm, in the foreground of a terminal. */
  const startInTerminal = async (...args: readonly string[]): Promise<RunningProgram> => {
    // A shell in between would end by the signal itself, and its status would be told.
    const line = `exec npm run --silent demo -- ${portsOption()} ${args.join(" ")}`;
    const terminal = await startProgram("script", ["-qfec", line, "/dev/null"], {
      cwd: project,
      env: {
        ...environment(),
        PATH: process.env.PATH ?? "",
        HOME: resources.add(makeTempFolder("home")).path,
        NODE_DISABLE_COMPILE_CACHE: "1", // npm would leave one in the folder of temporary files
        npm_config_offline: "true",
        npm_config_update_notifier: "false",
      },
      opensInput: true,
    });
    return resources.add(terminal);
  };
  const traces = async (): Promise<Traces> => ({
    folders: await readdir(folder),
    mounts: (await mountsBelow(folder)).map(({ path }) => path),
    processes: await processesOf(folder),
    listening: await listeningOf(ports),
  });
  const expectNothingLeft = async (): Promise<void> => {
    let left = nothing;
    // A process that was killed may take a moment; whatever else is left stays left.
    await eventually(
      async () => {
        left = await traces();
        return Object.values(left).every(({ length }) => length === 0);
      },
      () => `this is left: ${JSON.stringify(left)}`,
      5000,
    );
  };

  it("is kept as the story tells, until Ctrl-C leaves nothing of it", async () => {
    const terminal = await startInTerminal("--keep");
    const [, envFile = ""] = await terminal.waitFor(/ \. (\/\S+\/env)\s[\s\S]*every command above/);
    const demo = dirname(envFile);

    const other = otherTerminal(envFile);
    // The volume is there, and is to have all that the story's own had.
    const untilUnmounted: Shell = {
      ...other,
      run: async (line, options) => {
        if (line !== mountCommand) await other.run(line, options);
      },
    };
    const login = { user: "unused", password: "only-the-proxy-reads-this" };
    const interruption = new AbortController().signal;
    await tellStory(untilUnmounted, { login, ports, interruption });
    expect(other.transcript()).to.match(/^buildkitd\.toml$/m);
    await other.run(mountCommand);

    // Somebody's shell may be there when it ends.
    resources.add(await startProgram("sleep", ["1000"], { cwd: join(demo, "volume") }));
    const before = await traces();
    expect(before.folders).to.have.lengthOf(1);
    expect(before.mounts).to.deep.equal([join(demo, "volume")]);
    expect(before.processes.join("\n")).to.match(/docker-registry serve[\s\S]* standalone /);
    expect(before.listening).to.have.members(Object.values(ports));
    terminal.write(ctrlC);
    await terminal.waitFor(/Everything is stopped and removed\.\r\n$/);
    await terminal.ended;
    expect(terminal.status()).to.equal(0);
    await expectNothingLeft();
  });

  it("leaves nothing when SIGTERM reaches it alone, in the middle of a build", async () => {
    const demo = await startDemo();
    await demo.waitFor(/\$ buildah bud /);
    expect((await traces()).mounts).to.have.lengthOf(1);
    process.kill(demo.pid, "SIGTERM");
    await demo.waitFor(
      /\ndemo: interrupted by SIGTERM before its end: everything is .*removed\.\n$/,
    );
    await demo.ended;
    expect(demo.status()).to.equal(143);
    await expectNothingLeft();
  });

  it("leaves nothing when SIGINT reaches it alone, twice, while it mounts", async () => {
    const demo = await startDemo();
    await demo.waitFor(/\$ oci-connector mount /);
    expect((await traces()).listening).to.have.members(Object.values(ports));
    process.kill(demo.pid, "SIGINT");
    process.kill(demo.pid, "SIGINT");
    await demo.waitFor(
      /\ndemo: interrupted by SIGINT before its end: everything is .*removed\.\n$/,
    );
    await demo.ended;
    expect(demo.status()).to.equal(130);
    await expectNothingLeft();
  });

  it("leaves nothing when its terminal is closed", async () => {
    const terminal = await startInTerminal();
    await terminal.waitFor(/\$ buildah push /);
    expect((await traces()).mounts).to.have.lengthOf(1);
    terminal.signal("SIGKILL");
    await terminal.ended;
    await expectNothingLeft();
  });

  it("says which ports it wants, and which of them is in use", async () => {
    const run = (option: string) =>
      runProgram(process.execPath, [script, option], { env: environment() });
    const wrong = await run("--ports=5010,5011,5080");
    expect(wrong.stderr).to.match(/--ports wants four different ports .* not "5010,5011,5080"/);
    expect(wrong.status).to.equal(1);
    const listener = await startProgram(process.execPath, [
      "-e",
      `require("net").createServer().listen(${ports.http}, "127.0.0.1", () => console.log("listens"))`,
    ]);
    resources.add(listener);
    await listener.waitFor(/listens/);
    const busy = await run(portsOption());
    expect(busy.stderr).to.include(`port ${ports.http} is in use`).and.to.include("--ports");
    expect(busy.status).to.equal(1);
    expect(await readdir(folder)).to.deep.equal([]);
  });
});

/** Types the story's commands as they are shown, in a terminal with settings and a folder of its own. */
function otherTerminal(envFile: string): Shell {
  const env = { http_proxy: "http://127.0.0.1:1", REGISTRY_AUTH_FILE: "/nowhere/auth.json" };
  const said: string[] = [];
  return {
    say() {},
    background() {}, // the kept demo's own goes on
    async stop() {},
    transcript: () => said.join(""),
    async run(line, { fails = false, silent = false } = {}) {
      if (silent) return; // nobody sees it, so nobody types it
      const typed = `. '${envFile}'\n${line}`;
      const { status, stdout, stderr } = await runProgram("sh", ["-c", typed], { env, cwd: "/" });
      said.push(stdout, stderr);
      expect(status !== 0, `${line}\n${stdout}${stderr}`).to.equal(fails);
    },
  };
}

/** Four ports that nobody uses, below those that the kernel gives to connections. */
async function freePorts(): Promise<[number, number, number, number]> {
  const first = randomInt(20_000, 30_000);
  const four = [first, first + 1, first + 2, first + 3] as [number, number, number, number];
  const used = await Promise.all(four.map(isListening));
  return used.includes(true) ? freePorts() : four;
}

async function listeningOf(ports: Ports): Promise<readonly number[]> {
  const found: number[] = [];
  for (const port of Object.values(ports)) if (await isListening(port)) found.push(port);
  return found;
}

/** The command lines of all processes that have a folder in their environment or their arguments. */
async function processesOf(folder: string): Promise<readonly string[]> {
  const ids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const read = (id: string, file: string): Promise<string> =>
    readFile(`/proc/${id}/${file}`, "utf8").catch(() => ""); // it has ended in the meantime
  const lines = await Promise.all(
    ids.map(async (id) => {
      const line = await read(id, "cmdline");
      return (line + (await read(id, "environ"))).includes(folder) ? [line] : [];
    }),
  );
  return lines.flat().map((line) => line.replaceAll("\0", " "));
}
