/** The log of a process whose stderr is full, is not read, or is read slowly, and strangers who fill it. */
import { execFileSync } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { logBounds } from "../../src/roles/log-queue.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { type RunningProgram, startProgram } from "../support/program.ts";
import { openRaw } from "../support/raw-request.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

interface Line {
  readonly message: string;
  readonly user?: string;
  readonly reference?: string;
  readonly status?: number;
  readonly reason?: string;
  readonly count?: number;
}

describe("standalone mode: the log", function () {
  this.timeout(60_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  const ref = "team-a/hub";
  let registry: FakeRegistry;
  let host: CiHost;
  let volume: Volume;
  /** A file, a pipe or a device per test. */
  let stderr: string;

  before(async () => {
    registry = resources.add(
      await startFakeRegistry({ auth: "bearer", users: { alice: login.password } }),
    );
    addImage(registry.repository("app"), "1", { seed: "log" });
    const warnOnSignal = 'process.on("SIGUSR2",()=>process.emitWarning("own warning"))';
    const nodeArgs = [`--import=data:text/javascript,${warnOnSignal}`];
    host = resources.add(await startCiHost({ nodeArgs }));
    host.keepSecret("the registry's password", login.password);
    await host.write("hub.yaml", connectorYaml({ ref, address: registry.url, login }));
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", ref);
  });
  after(resources.stop);
  beforeEach(async () => {
    await endPolitely();
    stderr = join(host.folder, "stderr");
    await rm(stderr, { force: true });
  });
  afterEach(async () => {
    for (const token of registry.auth.tokens.keys()) host.keepSecret(token.slice(0, 12), token);
    expect(await host.leaks()).to.deep.equal([]);
  });

  async function endPolitely(): Promise<void> {
    host.program().signal("SIGTERM");
    await eventually(
      () => host.program().status() !== undefined,
      () => "the process does not end",
      20_000,
    );
    expect(host.program().status()).to.equal(0);
  }
  const pull = async (tag: string): Promise<number> =>
    (await volume.request("GET", ref, `app/manifests/${tag}`)).status;
  /** Pulls `first`, `first + 1`…: numbers for tags, so that each line has one. */
  async function pullNumbers(first: number, count: number): Promise<void> {
    for (let number = first; number < first + count; number += 1) {
      expect(await pull(`n${number}`)).to.equal(404);
    }
  }
  const numbers = (lines: readonly Line[]): readonly number[] =>
    lines.flatMap(({ reference }) =>
      reference?.startsWith("n") ? [Number(reference.slice(1))] : [],
    );
  const range = (count: number): readonly number[] => Array.from({ length: count }, (_, n) => n);

  /** Sends requests without an identity, a few at a time over a connection, and waits for all responses. */
  async function sendAsStranger(count: number): Promise<void> {
    const connections = 8;
    const atOnce = 10; // a connection that pipelines more than 16 is ended
    const port = Number(host.http.split(":")[1]);
    await Promise.all(
      range(connections).map(async () => {
        const each = count / connections;
        const connection = await openRaw({ port });
        try {
          const sent = `GET /v2/ HTTP/1.1\r\nHost: ${host.http}\r\n\r\n`;
          for (let answered = 0; answered < each; answered += atOnce) {
            connection.send(sent.repeat(atOnce));
            await eventually(
              () => connection.received().split("HTTP/1.1 401").length > answered + atOnce,
              () => "not all requests were answered",
              30_000,
            );
          }
        } finally {
          connection.stop();
        }
      }),
    );
  }
  const strangers = (lines: readonly Line[]): number =>
    lines.filter(({ user, status }) => user === undefined && status === 401).length;
  const leftOut = (lines: readonly Line[]): readonly Line[] =>
    lines.filter(({ message }) => message.includes(" were left out: "));
  const sumOf = (lines: readonly Line[]): number =>
    lines.reduce((sum, { count = 0 }) => sum + count, 0);

  /** Lines of a text; fails where one is not whole. */
  function parse(text: string): readonly Line[] {
    host.saw("the log", text);
    expect(text.endsWith("\n")).to.equal(true);
    return text
      .trimEnd()
      .split("\n")
      .map((line): Line => JSON.parse(line));
  }
  function makeFifo(): void {
    execFileSync("mkfifo", [stderr]);
  }
  /** Reads the pipe, from now on; in a program of its own, since a read of a pipe would hold a thread of this process. */
  const startReader = async (...command: readonly [string, ...string[]]): Promise<RunningProgram> =>
    resources.add(await startProgram(command[0], [...command.slice(1), stderr]));

  it("into /dev/full is lost, and the process serves on and ends in order", async () => {
    await host.start("/dev/full");
    await sendAsStranger(80);
    await pullNumbers(0, 20);
    expect(await pull("1")).to.equal(200);
    await endPolitely();
  });

  it("into a pipe that nobody reads stops neither the process nor its end", async () => {
    makeFifo();
    await host.start(stderr);
    await pullNumbers(0, 400); // more than the 64 KiB of a pipe
    await sendAsStranger(800);
    expect(await pull("1")).to.equal(200);
    await endPolitely();
  });

  it("comes out whole once a reader of the pipe is back, with what is missing in numbers", async () => {
    makeFifo();
    await host.start(stderr);
    await pullNumbers(0, 300);
    await sendAsStranger(1600);
    await pullNumbers(300, 100);
    const reader = await startReader("cat");
    await eventually(
      () => / were left out: /.test(reader.output()),
      () => `no line says what is missing in ${reader.output()}`,
      20_000,
    );
    await endPolitely();
    const complete = (): boolean =>
      strangers(parse(reader.output())) + sumOf(leftOut(parse(reader.output()))) >= 1600;
    await eventually(complete, () => `requests are missing in ${reader.output()}`);
    const lines = parse(reader.output());
    expect(numbers(lines)).to.deep.equal(range(400));
    expect(strangers(lines)).to.be.at.least(logBounds.strangerBurstLines);
    const gaps = leftOut(lines);
    expect(strangers(lines) + sumOf(gaps)).to.be.equal(1600);
    for (const { reason, user } of gaps)
      expect({ reason, user }).to.deep.equal({ reason: "rate", user: undefined });
  });

  it("of a reader that is slow is complete", async () => {
    makeFifo();
    const slowly = 'while dd bs=4096 count=1 status=none; do sleep 0.005; done < "$0"';
    const reader = await startReader("sh", "-c", slowly);
    await host.start(stderr);
    await pullNumbers(0, 500);
    await eventually(
      () => reader.output().includes('"reference":"n499"'),
      () => `the last line is missing in ${reader.output().slice(-1000)}`,
      20_000,
    );
    const text = reader.output();
    const lines = parse(text.slice(0, text.lastIndexOf("\n") + 1));
    expect(numbers(lines)).to.deep.equal(range(500));
    expect(leftOut(lines)).to.deep.equal([]);
  });

  it("on a full disk goes on where it stopped once there is room", async () => {
    const disk = join(host.folder, "disk");
    await mkdir(disk, { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]);
    const filler = join(disk, "filler");
    await writeFile(filler, Buffer.alloc(40 * 1024));
    stderr = join(disk, "log");
    await host.start(stderr);
    await pullNumbers(0, 100); // more than what is free
    expect(await pull("1")).to.equal(200);
    const full = await readFile(stderr, "utf8");
    expect(full).not.to.include('"reference":"n99"');
    await rm(filler);
    await eventually(
      async () => (await readFile(stderr, "utf8")).includes('"reference":"1"'),
      () => "the log does not go on",
    );
    const lines = parse(await readFile(stderr, "utf8"));
    expect(numbers(lines)).to.deep.equal(range(100));
    await endPolitely();
    expect(parse(await readFile(stderr, "utf8")).at(-1)?.message).to.include("received a signal");
  });

  it("keeps a tenant's lines in a flood of strangers' requests, and says how many of theirs are missing", async () => {
    await writeFile(stderr, "");
    await host.start(stderr);
    let isFlooding = true;
    const flood = async (): Promise<number> => {
      let sent = 0;
      for (; isFlooding; sent += 800) await sendAsStranger(800);
      return sent;
    };
    const flooding = flood();
    await pullNumbers(0, 100);
    await sleep(500);
    isFlooding = false;
    const sent = await flooding;
    await endPolitely();
    const lines = parse(await readFile(stderr, "utf8"));
    expect(numbers(lines)).to.deep.equal(range(100));
    expect(strangers(lines)).to.be.lessThan(sent);
    expect(strangers(lines) + sumOf(leftOut(lines))).to.equal(sent);
    // None is left out of those who come slowly, and none of a tenant's.
    for (const { user } of leftOut(lines)) expect(user).to.equal(undefined);
  });

  it("has the warnings of Node.js as lines of its own, and waits for none", async () => {
    makeFifo();
    await host.start(stderr);
    await pullNumbers(0, 300);
    process.kill(host.program().pid, "SIGUSR2");
    await pullNumbers(300, 10);
    const reader = await startReader("cat");
    await reader.waitFor(/"message":"Node.js has warned","error":"Warning: own warning"/);
    await reader.waitFor(/"reference":"n309".*\n/);
    await endPolitely();
    await reader.ended;
    expect(numbers(parse(reader.output()))).to.deep.equal(range(310));
  });
});
