/** Volumes of users who are not root: what they can do with their own, and nothing else. */
import { execFileSync } from "node:child_process";
import { chown, lstat, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { expect } from "chai";
import type { MountRequest } from "../../src/csi/generated/ociconnector/v1/MountRequest.ts";
import { volumes as service } from "../../src/csi/proto.ts";
import { callOnSocket } from "../../src/csi/socket-client.ts";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { type Outcome, runProgram, startProgram } from "../support/program.ts";
import { type CiHost, startCiHost } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

const alice = 61001;
const bob = 61002;
const eve = 61003;

describe("volumes of users who are not root", function () {
  this.timeout(60_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let host: CiHost;
  let home: string;
  let homeOfBob: string;

  before(async () => {
    await requirePrograms(["setpriv", "python3"]);
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    const args = ["--allow", `${alice}=team-a/*`, "--allow", `${bob}=team-a/hub,team-b/*`];
    // Its first group lists nobody, so this also is about the users whom /etc/passwd puts there.
    const group = execFileSync("id", ["-gn", "nobody"], { encoding: "utf8" }).trim();
    host = resources.add(await startCiHost({ args: [...args, "--allow", `@${group}=team-b/*`] }));
    for (const ref of ["team-a/hub", "team-b/hub"]) {
      const yaml = connectorYaml({ ref, address: registry.url, login });
      await host.write(`${ref.replace("/", "-")}.yaml`, yaml);
      await host.waitForLog("connectors were added, removed or changed", ref);
    }
    home = await host.makeHome(alice);
    homeOfBob = await host.makeHome(bob);
    await host.makeHome(eve);
  });
  afterEach(async () => {
    await unmountAll(alice);
    await unmountAll(bob);
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    expect(await readdir(join(host.state, "volumes"))).to.deep.equal([]);
    expect(await readdir(join(host.folder, "run"))).to.deep.equal(["users"]);
    expect(await host.leaks()).to.deep.equal([]);
  });
  after(resources.stop);

  const connectors = ["--connectors", "team-a/hub"];
  const mountAs = (uid: number, target: string, ...more: readonly string[]): Promise<Outcome> =>
    host.runAs(uid, "mount", target, ...(more.includes("--connectors") ? [] : connectors), ...more);
  const mount = async (target: string, ...more: readonly string[]): Promise<string> => {
    const outcome = await mountAs(alice, target, ...more);
    expect(outcome).to.include({ status: 0, stderr: "" });
    return readFile(join(target, "context.token"), "utf8");
  };
  const asUser = (uid: number, script: string): Promise<Outcome> =>
    runProgram("sh", ["-c", script], { uid });
  const listed = async (uid: number): Promise<readonly { target: string; uid: number }[]> =>
    JSON.parse((await host.runAs(uid, "volumes", "--output", "json")).stdout);

  async function unmountAll(uid: number): Promise<void> {
    for (const { target } of await listed(uid)) await host.runAs(uid, "unmount", target);
  }

  it("are mounted, used and ended by their owner, for whom alone they are", async () => {
    const target = join(home, "volume");
    const token = await mount(target);
    expect(await host.pullWith(token)).to.equal(200);
    for (const [path, mode] of [
      ["", 0o40500],
      ["..data/", 0o40500],
      ["..data/context.token", 0o100400],
    ] as const) {
      const found = await lstat(join(target, path));
      expect([found.uid, found.mode], path).to.deep.equal([alice, mode]);
    }
    const change = `touch ${target}/new || chmod 700 ${target} || chmod 600 ${target}/context.token`;
    expect((await asUser(alice, change)).stderr).to.include("Read-only file system");
    expect((await asUser(alice, `cat ${target}/context.token`)).stdout).to.equal(token);
    const place = (await readdir(join(host.folder, "run"))).filter((name) => name !== "users");
    expect(place).to.have.lengthOf(1);
    for (const path of [target, join(host.folder, "run", String(place))]) {
      expect((await asUser(bob, `cat ${path}/context.token`)).status).not.to.equal(0);
    }
    expect(await listed(alice)).to.have.lengthOf(1);
    expect(await listed(bob)).to.deep.equal([]);
    const roots = JSON.parse((await host.run("volumes", "--output", "json")).stdout);
    expect(roots[0]).to.include({ target, uid: alice });

    expect((await host.runAs(bob, "unmount", target)).stderr).to.include("no volume of yours");
    expect((await host.run("mount", target, ...connectors)).status).to.equal(1);
    expect(await host.pullWith(token)).to.equal(200);
    expect(await mountAs(alice, target)).to.include({ status: 1 });
    const second = await mount(target, "--replace");
    expect(await host.pullWith(token)).to.equal(401);
    expect(await host.pullWith(second)).to.equal(200);
    const ended = await host.runAs(alice, "unmount", target);
    expect(ended).to.include({ status: 0, stdout: `unmounted ${target}\n` });
    expect(await host.pullWith(second)).to.equal(401);
    expect(await readdir(target)).to.deep.equal([]);
  });

  it("can be ended by root", async () => {
    const target = join(home, "for-root");
    const token = await mount(target);
    expect(await host.run("unmount", target)).to.include({ status: 0 });
    expect(await host.pullWith(token)).to.equal(401);
  });

  it("are there for run, and end with it, also where it is killed", async () => {
    const script = "cat $OCI_CONNECTOR_VOLUME/context.token; echo; echo ready; exec sleep 1000";
    const env = { HOME: home, TMPDIR: home };
    const command = [...connectors, "--", "sh", "-c", script];
    const job = await host.startJob(command, env, alice);
    const [, token = ""] = await job.waitFor(/^(\S+)\nready$/m);
    expect(await host.pullWith(token)).to.equal(200);
    expect(await listed(bob)).to.deep.equal([]);
    process.kill(job.pid, "SIGKILL");
    await eventually(
      async () => (await host.pullWith(token)) === 401 && (await listed(alice)).length === 0,
      () => "the volume of a killed run is still there",
    );
    job.signal("SIGKILL");
  });

  it("open the connectors that the operator allows, and it is not said which others there are", async () => {
    const target = join(home, "volume");
    const refuse = async (names: string): Promise<string> => {
      const { status, stderr } = await mountAs(alice, target, "--connectors", names);
      expect(status).to.equal(1);
      return stderr.replaceAll(names, "X");
    };
    const foreign = await refuse("team-b/hub");
    expect(foreign).to.include("--allow");
    expect(await refuse("team-b/no-such")).to.equal(foreign);
    expect(await refuse("team-a/no-such")).to.equal(foreign);
    expect(await refuse("team-a/hub,team-b/hub")).to.include("--allow");
    expect(await readdir(target)).to.deep.equal([]);
    const path = join(homeOfBob, "volume");
    expect(await mountAs(bob, path, "--connectors", "team-b/hub")).to.include({ status: 0 });
  });

  it("are for the members of a group that the operator allows", async () => {
    const nobody = Number(execFileSync("id", ["-u", "nobody"], { encoding: "utf8" }));
    expect(await listed(nobody)).to.deep.equal([]);
    const args = ["run", "--connectors", "team-b/hub", "--", "true"];
    expect(await host.runAs(nobody, ...(args as [string]))).to.include({ status: 0, stderr: "" });
  });

  it("are not for users whom the operator does not name, who learn what to ask for", async () => {
    const { status, stderr } = await mountAs(eve, join(host.folder, `home-${eve}`, "volume"));
    expect(status).to.equal(1);
    expect(stderr).to.include("has not allowed user").and.include(`--allow ${eve}=`);
  });

  it("are mounted on an empty folder of the user alone, by a path without links", async () => {
    await mkdir(join(host.folder, "roots"));
    await mkdir(join(home, "full"));
    await writeFile(join(home, "full/file"), "");
    await chown(join(home, "full"), alice, alice);
    await mkdir(join(homeOfBob, "empty"));
    await chown(join(homeOfBob, "empty"), bob, bob);
    await symlink(join(host.folder, "roots"), join(home, "link"));
    await writeFile(join(home, "file"), "");
    for (const target of [
      join(host.folder, "roots"),
      join(host.folder, "run"),
      join(host.folder, "new"),
      join(home, "full"),
      join(home, "link"),
      join(home, "file"),
      join(homeOfBob, "empty"),
      "/proc/self/task",
    ]) {
      expect((await mountAs(alice, target)).status, target).to.equal(1);
    }
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
  });

  it("have bounds, and no options of root", async () => {
    const target = join(home, "bounded");
    for (const [option, words] of [
      [["--persistent"], "root alone"],
      [["--force"], "root alone"],
      [["--group", "0"], "root alone"],
      [["--for", "0"], "24h at most"],
      [["--for", "25h"], "24h at most"],
      [["--pid", "1"], "none of user"],
      [["--pid", String(process.pid)], "none of user"],
    ] as const) {
      const { status, stderr } = await mountAs(alice, target, ...option);
      expect([status, stderr.includes(words)], option.join(" ") + stderr).to.deep.equal([1, true]);
    }
    const own = resources.add(await startProgram("sleep", ["1000"], { uid: alice }));
    const token = await mount(target, "--pid", String(own.pid));
    own.signal("SIGKILL");
    await eventually(
      async () => (await host.pullWith(token)) === 401,
      () => "the volume outlives its process",
    );
  });

  it("end where their folder is moved, and nothing is left anywhere", async () => {
    const folder = join(home, "parent");
    await mkdir(folder);
    await chown(folder, alice, alice);
    const token = await mount(join(folder, "volume"));
    await asUser(alice, `cd ${home} && mv parent moved && ln -s ${host.folder}/roots parent`);
    await eventually(
      async () =>
        (await host.pullWith(token)) === 401 && (await mountsBelow(host.folder)).length === 0,
      () => "something is left of a volume that was moved",
    );
    expect(await readdir(join(home, "moved/volume"))).to.deep.equal([]);
    await rm(join(home, "parent"));
  });

  /** Asks on the socket of alice, past all that the command line looks at itself. @returns the refusal, or undefined */
  const askForMount = (request: MountRequest): Promise<string | undefined> =>
    callOnSocket<InstanceType<typeof service.Volumes>, unknown>(
      service.Volumes,
      join(host.folder, "run/users", `${alice}.sock`),
      (client, deadline, done) =>
        client.mount(
          {
            namespace: "default",
            attributes: { connectors: "team-a/hub", ...request.attributes },
            lifetimeSeconds: 600,
            ...request,
          },
          { deadline },
          done,
        ),
    ).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );

  it("are refused to a client that asks for what the command line does not let through", async () => {
    const precious = join(host.folder, "closed");
    await mkdir(join(precious, "empty"), { recursive: true });
    await mkdir(join(precious, "alices"));
    await chown(join(precious, "alices"), alice, alice);
    await symlink(precious, join(home, "way"));
    const unfit = "wanted an empty folder that belongs to you";
    for (const targetPath of [
      join(home, "way/alices"),
      join(home, "way/empty"),
      join(precious, "empty"),
      join(home, "../closed/alices/../empty"),
      `${home}/../home-${bob}`,
      join(home, "no-such"),
      "relative",
      "/",
      "/etc",
    ]) {
      expect(await askForMount({ targetPath }), targetPath).to.include(unfit);
    }
    const context = { "csi.storage.k8s.io/pod.name": "another" };
    const attributes = { connectors: "team-a/hub", ...context };
    expect(await askForMount({ attributes })).to.include("wanted none");
    expect(await askForMount({ lifetimeSeconds: 0 })).to.include("24h at most");
    expect(await askForMount({ lifetimeSeconds: -1 })).to.include("24h at most");
    const process = { pid: 1, startTicks: 0 };
    expect(await askForMount({ lifetimeSeconds: 0, process })).to.include("none of user");
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
  });

  /** What is mounted anywhere but below the home of alice and in the folder of the process. */
  const mountedOutside = async (): Promise<readonly string[]> =>
    (await mountsBelow(host.folder))
      .map(({ path }) => path)
      .filter((path) => !path.startsWith(`${home}/`) && !path.startsWith(`${host.folder}/run/`));

  it("are mounted over nothing else while folders and links are swapped", async () => {
    const precious = join(host.folder, "precious");
    await mkdir(join(precious, "volume"), { recursive: true });
    await mkdir(join(precious, "empty"));
    const swapper = resources.add(
      await startProgram("python3", ["-c", swapLinks, home, precious], { uid: alice }),
    );
    await swapper.waitFor(/swapping/);
    const outside = new Set<string>();
    let isOver = false;
    const watching = (async () => {
      // What is mounted in the wrong place may be there for a moment only.
      while (!isOver) {
        for (const path of await mountedOutside()) outside.add(path);
        await setTimeout(1);
      }
    })();
    const refusals: (string | undefined)[] = [];
    for (let round = 0; round < 60; round++) {
      const targetPath = join(home, round % 2 === 0 ? "race-a/volume" : "race-b");
      refusals.push(await askForMount({ targetPath }));
      if (round % 10 === 9) await unmountAll(alice);
    }
    isOver = true;
    await watching;
    await swapper.stop();
    await eventually(
      async () =>
        (await listed(alice)).length === 0 && (await mountsBelow(host.folder)).length === 0,
      () => "a mount of the race is left",
    );
    expect([...outside]).to.deep.equal([]);
    expect(refusals.some((refusal) => refusal === undefined)).to.equal(true);
    expect(refusals.some((refusal) => refusal !== undefined)).to.equal(true);
    expect(await readdir(join(precious, "volume"))).to.deep.equal([]);
    expect((await lstat(join(precious, "empty"))).uid).to.equal(0);
  });

  it("are 32 at most for each user", async () => {
    const folder = join(home, "many");
    await mkdir(folder);
    await chown(folder, alice, alice);
    const script = `for i in $(seq 32); do "$@" --connectors team-a/hub ${folder}/$i || exit 3; done`;
    const command = [process.execPath, join(import.meta.dirname, "../../src/main.ts"), "mount"];
    const args = ["-c", script, "sh", ...command, "--run-folder", join(host.folder, "run")];
    const filled = await runProgram("sh", args, { uid: alice, cwd: "/" });
    expect(filled).to.include({ status: 0, stderr: "" });
    const { stderr } = await mountAs(alice, join(folder, "33"));
    expect(stderr).to.include("has 32 volumes");
    expect((await mountAs(bob, join(homeOfBob, "first"))).status).to.equal(0);
  });

  it("outlive a start of the process that still allows them", async () => {
    const target = join(home, "restarted");
    const token = await mount(target);
    await host.kill();
    await host.start();
    expect(await host.pullWith(token)).to.equal(200);
    expect(await listed(alice)).to.have.lengthOf(1);
  });

  it("are refused at the start where a user or group is none", async () => {
    const start = async (allow: string): Promise<string> => {
      const args = [
        "standalone",
        "--connectors",
        host.connectors,
        "--state",
        join(host.folder, "other"),
      ];
      const main = join(import.meta.dirname, "../../src/main.ts");
      const { stderr, stdout } = await runProgram(process.execPath, [
        main,
        ...args,
        "--allow",
        allow,
      ]);
      return stderr + stdout;
    };
    expect(await start("no-such-user=team-a/*")).to.include("there is no user no-such-user");
    expect(await start("@no-such-group=team-a/*")).to.include("there is no group no-such-group");
    expect(await start("root=team-a/*")).to.include("root is root");
    expect(await start("alice"))
      .to.include("--allow")
      .and.include("USER=CONNECTORS");
  });

  it("leave the process to others where a user opens connection after connection", async () => {
    const socket = join(host.folder, "run/users", `${alice}.sock`);
    const hog = resources.add(
      await startProgram("python3", ["-c", openConnections, socket], { uid: alice }),
    );
    const [, refused = ""] = await hog.waitFor(/^closed (\d+)$/m);
    expect(Number(refused)).to.equal(100 - 16);
    expect(await listed(bob)).to.deep.equal([]);
    await hog.stop();
    expect(await listed(alice)).to.deep.equal([]);
  });

  it("are asked for on a socket that only its user can connect to", async () => {
    const socket = join(host.folder, "run/users", `${alice}.sock`);
    const connect = `import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])`;
    const as = async (uid: number): Promise<number | undefined> =>
      (await runProgram("python3", ["-c", connect, socket], { uid })).status;
    expect([await as(alice), await as(bob)]).to.deep.equal([0, 1]);
    const steal = `rm -f ${socket}; mv ${socket} ${home}/s; ls ${host.folder}/run/users`;
    expect((await asUser(alice, steal)).status).not.to.equal(0);
    expect(await as(alice)).to.equal(0);
    expect((await lstat(socket)).isSocket()).to.equal(true);
  });
});

/** Opens a hundred connections, and counts those that are closed at once. */
const openConnections = `
import select, socket, sys, time
sockets = []
for _ in range(100):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    sockets.append(one)
time.sleep(1)
def is_closed(one):
    one.setblocking(False)
    try: return one.recv(65536) == b""
    except BlockingIOError: return False
    except OSError: return True
print("closed", sum(is_closed(one) for one in sockets), flush=True)
time.sleep(1000)
`;

/** Swaps a folder of a path, and the last component of another, with links to folders of root, as fast as it can. */
const swapLinks = `
import os, random, sys, time
home, precious = sys.argv[1:]
os.chdir(home)
os.makedirs("race-a.real/volume")
os.mkdir("race-b.real")
print("swapping", flush=True)
def pause(): time.sleep(random.choice((0, 0.0005, 0.005, 0.08)))
def swap(name, target):
    try:
        os.symlink(target, name)
        pause()
        os.unlink(name)
        os.rename(name + ".real", name)
        pause()
        os.rename(name, name + ".real")
    except OSError:
        try: os.rename(name, name + ".real")
        except OSError: pass
while True:
    swap("race-a", precious)
    swap("race-b", precious + "/empty")
`;
