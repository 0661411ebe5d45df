/** How the process starts, refuses to, and ends. */
import { once } from "node:events";
import {
  access,
  chmod,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import { plainRequest } from "../support/plain-request.ts";
import { type Outcome, runProgram, startProgram, systemPath } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type CiHost, runCommand, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

const ref = "team-a/hub";
const blob = noise("blob", 300_000);

const mainScript = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

const isMissing = (path: string): Promise<boolean> =>
  access(path).then(
    () => false,
    () => true,
  );

/** The names of the programs that a process has started, and that still run. */
async function childrenOf(pid: number): Promise<readonly string[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const pids = text.split(" ").filter((word) => word !== "");
  const names = pids.map((child) => readFile(`/proc/${child}/comm`, "utf8").catch(() => ""));
  return (await Promise.all(names)).map((name) => name.trim());
}

describe("standalone mode: its end", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let host: CiHost;
  let volume: Volume;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
  });
  afterEach(resources.stop);

  async function start(...args: readonly string[]): Promise<void> {
    host = resources.add(await startCiHost({ args }));
    const login = { username: "alice", password: "secret-of-alice" };
    await host.write("hub.yaml", connectorYaml({ ref, address: registry.url, login }));
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", ref);
  }
  /** A pull that has begun, and goes on once the registry is told to. */
  async function slowPull() {
    const { promise, resolve: goOn } = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    registry.on("GET blob", async ({ response }) => {
      response.writeHead(200, { "Content-Length": blob.length });
      response.write(blob.subarray(0, 1000));
      begun.resolve();
      await promise;
      response.end(blob.subarray(1000));
    });
    const answer = volume.request("GET", ref, `app/blobs/${sha256(blob)}`, { scheme: "http" });
    await begun.promise;
    return { answer, goOn };
  }
  /** A push that has begun, and goes on once the client wants. */
  async function slowPush() {
    const { promise, resolve: goOn } = Promise.withResolvers<void>();
    async function* halves(): AsyncGenerator<Buffer> {
      yield blob.subarray(0, 1000);
      await promise;
      yield blob.subarray(1000);
    }
    const { headers } = await volume.request("POST", ref, "app/blobs/uploads/");
    const body = Readable.from(halves());
    const answer = volume.request("PATCH", ref, headers.location ?? "", { body });
    await eventually(
      () => registry.requests.some(({ method }) => method === "PATCH"),
      () => "the push has not begun",
    );
    return { answer, goOn };
  }
  const refusesConnections = async (): Promise<boolean> => {
    const ca = await volume.read("ca.crt");
    const outcomes = await Promise.allSettled([
      plainRequest(`http://${host.http}/v2/`),
      plainRequest(`https://${host.https}/v2/`, { ca }),
    ]);
    return outcomes.every(
      (outcome) => outcome.status === "rejected" && outcome.reason.code === "ECONNREFUSED",
    );
  };
  it("finishes what is under way, takes nothing new, and leaves volumes mounted", async () => {
    await start();
    const before = await mountsBelow(host.folder);
    const [pull, push] = [await slowPull(), await slowPush()];
    host.program().signal("SIGTERM");
    await host.waitForLog("received a signal to end", "SIGTERM");
    await eventually(refusesConnections, () => "connections are taken");
    expect(await isMissing(join(host.state, "csi.sock"))).to.equal(true);
    expect((await host.run("mount", "late", "--connectors", ref)).stderr).to.include(
      "can't connect to",
    );
    await sleep(200); // requests that are cut would have ended by now
    expect(host.program().status()).to.equal(undefined);

    pull.goOn();
    push.goOn();
    const [pulled, pushed] = await Promise.all([pull.answer, push.answer]);
    expect(pulled.complete && pulled.body.equals(blob)).to.equal(true);
    expect(pushed).to.include({ status: 202, complete: true });
    await host.program().ended;
    expect(host.program().status()).to.equal(0);
    expect(await mountsBelow(host.folder)).to.deep.equal(before);
    expect(await volume.read("context.token")).to.equal(volume.token);
    expect(await readdir(host.state)).to.have.members([
      "lock",
      "proxy-ca.pem",
      "seal.key",
      "token.key",
      "volumes",
    ]);

    await host.start();
    expect(await volume.request("GET", ref, "/v2/")).to.have.property("status", 200);
    await host.unmount("volume");
  });

  it("waits no longer than it was told to, and cuts what is left", async () => {
    await start("--grace", "300ms");
    const pull = await slowPull();
    host.program().signal("SIGINT");
    expect(await pull.answer).to.include({ status: 200, complete: false });
    await host.program().ended;
    expect(host.program().status()).to.equal(0);
  });

  it("ends at once when it is told a second time", async () => {
    await start();
    const pull = await slowPull();
    host.program().signal("SIGTERM");
    await host.waitForLog("received a signal to end");
    host.program().signal("SIGTERM");
    await host.program().ended;
    expect(host.program().status()).to.equal(1);
    expect(await pull.answer).to.have.property("complete", false);
    expect(await mountsBelow(host.folder)).to.have.lengthOf(1);
  });

  it("ends in order when it is told so while it starts", async () => {
    await start();
    for (const delay of [0, 150, 300]) {
      await host.program().stop();
      const starting = host.start();
      const ended = starting.then(
        ({ ended }) => ended,
        (error: Error) => expect(error.message).to.include("ended before"),
      );
      await sleep(delay);
      host.program().signal("SIGTERM");
      await ended;
      // Until Node runs our code, the signal's own action ends it.
      expect(host.program().status()).to.be.oneOf([0, undefined]);
      expect(await readdir(host.state)).to.have.members([
        "lock",
        "proxy-ca.pem",
        "seal.key",
        "token.key",
        "volumes",
      ]);
    }
    await host.start();
    expect(await volume.request("GET", ref, "/v2/")).to.have.property("status", 200);
  });

  it("ends in order when a signal also ends a program that its start waits for", async () => {
    const { path: folder } = resources.add(makeTempFolder("end"));
    await mkdir(join(folder, "connectors"));
    await writeFile(join(folder, "flock"), "#!/bin/sh\necho waits >&2\nexec sleep 60\n", {
      mode: 0o755,
    });
    const program = resources.add(
      await startProgram(
        process.execPath,
        [
          mainScript,
          "standalone",
          "--connectors",
          join(folder, "connectors"),
          "--state",
          join(folder, "state"),
          "--listen",
          "127.0.0.1:0",
        ],
        { env: { PATH: `${folder}:${systemPath}` } },
      ),
    );
    await eventually(
      async () => (await childrenOf(program.pid)).includes("sleep"),
      () => "flock(1) was not started",
    );
    program.signal("SIGTERM"); // to its whole group, as a terminal's Ctrl-C
    await program.ended;
    expect(program.output()).to.include("received a signal to end");
    expect(program.status()).to.equal(0);
  });
});

describe("standalone mode: its start", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let folder: string;
  let host: CiHost;

  before(async () => {
    host = resources.add(await startCiHost());
  });
  beforeEach(async () => {
    folder = resources.add(makeTempFolder("start")).path;
    await mkdir(join(folder, "connectors"));
  });
  after(resources.stop);

  const args = (...more: readonly string[]): readonly string[] => [
    "standalone",
    "--connectors",
    join(folder, "connectors"),
    "--state",
    join(folder, "state"),
    "--listen",
    "127.0.0.1:0",
    ...more,
  ];
  /** It says just this, after what it has to log, and leaves no socket and no lock. */
  function expectRefusal({ status, stderr, timedOut }: Outcome, ...words: readonly string[]): void {
    expect({ status, timedOut }).to.deep.equal({ status: 1, timedOut: false });
    const lines = stderr.trimEnd().split("\n");
    const said = lines.filter((line) => !line.startsWith("{"));
    expect(said).to.have.lengthOf(1);
    for (const word of words) expect(said[0]).to.include(word);
    expect(stderr).not.to.include('"ready"');
  }

  it("is refused on a state folder that another process has, which goes on", async () => {
    const outcome = await runCommand(args("--state", host.state));
    expectRefusal(outcome, `is locked by another process (${host.program().pid})`, "stop that one");
    expect((await host.run("volumes")).status).to.equal(0);
  });

  it("is refused on an address that another process has, and gives the others back", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    resources.defer(() => listener.close());
    await new Promise((resolve) => listener.once("listening", resolve));
    const address = listener.address();
    const port = typeof address === "object" ? address?.port : undefined;
    const refuse = async (name: string, ...listen: readonly string[]): Promise<string> => {
      const outcome = await runCommand([
        "standalone",
        "--connectors",
        host.connectors,
        "--state",
        join(folder, name),
        ...listen.flatMap((listened) => ["--listen", listened]),
      ]);
      expectRefusal(outcome, "oci-connector: --listen: ");
      expect(outcome.stderr.match(/EADDR[A-Z]+/g)).to.have.lengthOf(1);
      return outcome.stderr;
    };
    const [http, https, elsewhere] = await Promise.all([
      refuse("a", "https://127.0.0.1:0", `http://127.0.0.1:${port}`),
      refuse("b", "http://127.0.0.1:0", `https://127.0.0.1:${port}`),
      refuse("c", "http://192.0.2.1:80"),
    ]);
    for (const said of [http, https]) {
      expect(said).to.include(
        `EADDRINUSE: address already in use 127.0.0.1:${port}: something else`,
      );
    }
    expect(elsewhere).to.include("192.0.2.1:80: this machine has no such address");
  });

  it("is refused to users who may not mount, whatever else they may", async () => {
    const mayRead = "+dac_override,+dac_read_search";
    const asNobody = [
      "--reuid",
      "65534",
      "--clear-groups",
      `--inh-caps=${mayRead}`,
      `--ambient-caps=${mayRead}`,
    ];
    const withoutCapability = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    const refuse = async (privileges: readonly string[], found: string): Promise<void> => {
      const command = [...privileges, process.execPath, mainScript, ...args()];
      const outcome = await runProgram("setpriv", command);
      expectRefusal(outcome, "volumes can't be mounted", found);
    };
    await Promise.all([
      refuse(asNobody, "found user 65534, wanted root"),
      refuse(withoutCapability, "found root without CAP_SYS_ADMIN"),
    ]);
    expect(await readdir(folder)).to.deep.equal(["connectors"]);
  });

  it("says so where its folder is empty", () => {
    expect(
      host.logged("the connectors folder has no Connector yet", host.connectors),
    ).to.have.length(1);
  });

  it("is refused without a folder of connectors, and in a state folder that will not do", async () => {
    await mkdir(join(folder, "shared"), { mode: 0o755 });
    await writeFile(join(folder, "shared", "theirs"), "");
    const none = join(folder, "none");
    const [missing, shared, deep] = await Promise.all([
      runCommand(args("--connectors", none)),
      runCommand(args("--state", join(folder, "shared"))),
      runCommand(args("--state", join(folder, "x".repeat(100)))),
    ]);
    expectRefusal(missing, `the connectors folder ${none} doesn't exist: create it`);
    expectRefusal(shared, "found mode 755: chmod 700");
    expectRefusal(deep, "csi.sock", "wanted 107 at most");
  });

  describe("leaves nothing behind where it fails by what can be known before", () => {
    const state = (): string => join(folder, "state");
    const refuse = async (words: readonly string[], ...more: readonly string[]): Promise<void> => {
      expectRefusal(await runCommand(args(...more)), ...words);
    };
    const taken = async (): Promise<string> => {
      const listener = createServer().listen(0, "127.0.0.1");
      resources.defer(() => listener.close());
      await once(listener, "listening");
      return `127.0.0.1:${(listener.address() as AddressInfo).port}`;
    };

    it("no folder of connectors", async () => {
      await refuse(["none doesn't exist: create it"], "--connectors", join(folder, "none"));
      expect(await isMissing(state())).to.equal(true);
    });

    it("a file in the place of the folder of connectors", async () => {
      await writeFile(join(folder, "file"), "");
      await refuse(["file is a file"], "--connectors", join(folder, "file"));
      expect(await isMissing(state())).to.equal(true);
    });

    it("an address that another process has, and one that this machine has not", async () => {
      const address = await taken();
      await refuse(["--listen: ", `${address}: something else`], "--listen", `http://${address}`);
      await refuse(["--listen: ", "no such address"], "--listen", "http://192.0.2.1:80");
      expect(await isMissing(state())).to.equal(true);
    });

    it("programs that are missing", async () => {
      const programs = join(folder, "programs");
      await mkdir(programs);
      await symlink("/bin/mount", join(programs, "mount"));
      const outcome = await runProgram("/usr/bin/env", [
        `PATH=${programs}`,
        process.execPath,
        mainScript,
        ...args(),
      ]);
      expectRefusal(outcome, "found no umount, flock on the PATH", "util-linux");
      expect(await isMissing(state())).to.equal(true);
    });

    it("a path that is too long for a socket", async () => {
      const deep = join(folder, "x".repeat(100));
      await refuse(["csi.sock", "wanted 107 at most"], "--state", deep);
      expect(await isMissing(deep)).to.equal(true);
    });

    it("a state folder that is a file, or would be below one", async () => {
      await writeFile(state(), "theirs");
      await refuse([`${state()} is a file: wanted a folder`]);
      await refuse([`since ${state()} is a file`], "--state", join(state(), "a", "b"));
      expect(await readFile(state(), "utf8")).to.equal("theirs");
    });

    it("a state folder where no folder can be", async () => {
      await refuse(
        ["/proc/nope/state", "name another state folder"],
        "--state",
        "/proc/nope/state",
      );
    });

    it("something in the place of the socket", async () => {
      await mkdir(state(), { mode: 0o700 });
      await writeFile(join(state(), "csi.sock"), "theirs");
      await refuse(["csi.sock: found something that is not a socket", "remove it"]);
      expect(await readdir(state())).to.deep.equal(["csi.sock"]);
    });

    it("a key that is damaged", async () => {
      await mkdir(state(), { mode: 0o700 });
      await writeFile(join(state(), "seal.key"), "short", { mode: 0o600 });
      await refuse(["seal.key is damaged"]);
      expect(await readdir(state())).to.deep.equal(["seal.key"]);
    });

    it("an empty state folder, as it was", async () => {
      await mkdir(state());
      await chmod(state(), 0o755);
      await refuse(["doesn't exist"], "--connectors", join(folder, "none"));
      expect(await readdir(state())).to.deep.equal([]);
      expect((await stat(state())).mode & 0o777).to.equal(0o755);
    });
  });

  it("is told of the state folder first, where another process has that and the address", async () => {
    const outcome = await runCommand([
      "standalone",
      "--connectors",
      host.connectors,
      "--state",
      host.state,
      "--listen",
      `http://${host.http}`,
    ]);
    expectRefusal(outcome, `is locked by another process (${host.program().pid})`);
  });

  it("names every option that is wrong, with a status of its own", async () => {
    const { status, stderr } = await runCommand(["standalone", "--listen", "0.0.0.0:1", "--x=y"]);
    expect(status).to.equal(64);
    expect(stderr).to.match(/^oci-connector: .*--x.*--connectors: .*--listen: .*0\.0\.0\.0:1.*\n$/);
    const help = await runCommand(["help"]);
    expect(help).to.include({ status: 0, stderr: "" });
    expect(help.stdout).to.match(/^usage: /);
  });

  it("makes a state folder that is its own, and logs one line that says it is ready", async () => {
    const [line = "{}"] = host.logged('"ready"');
    expect(JSON.parse(line)).to.include({
      level: "info",
      address: `http://${host.http} https://${host.https}`,
    });
    expect(await readFile(join(host.state, "lock"), "utf8")).to.equal(`${host.program().pid}\n`);
  });
});
