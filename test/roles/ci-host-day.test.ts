/** All that happens to a CI host in a day, at once: afterwards no token is good that should not be, and no mount is left. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import type { RunningProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type CiHost, startCiHost } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

/** Pulls until a file is there, as a client does that tries again while its registry is away. */
const job = (name: string, atItsEnd: string): string => `
  image="https://\${OCI_CONNECTOR_IMAGES%%/*}/v2/\${OCI_CONNECTOR_IMAGES#*/}/app/manifests/1"
  pull() {
    curl -sS --fail -o /dev/null --retry 60 --retry-all-errors --retry-delay 1 \\
      -H "Authorization: Bearer $(cat $OCI_CONNECTOR_VOLUME/context.token)" "$image"
  }
  pull || exit 8
  cat $OCI_CONNECTOR_VOLUME/context.token; echo; echo ${name} is ready
  until [ -e ${name}-ends ]; do pull || exit 9; echo "$HOME" > $BUILDX_CONFIG/state; sleep 0.05; done
  ${atItsEnd}`;

/** Who is not root, and has a job all the same. */
const user = 61001;

describe("a day of a CI host", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let host: CiHost;
  let home: string;
  let homeOfUser: string;
  /** The tokens of all volumes of the day, which are all to be refused at its end. */
  const tokens = new Map<string, string>();

  before(async () => {
    await requirePrograms(["curl"]);
    const users = { [login.username]: login.password };
    registry = resources.add(await startFakeRegistry({ auth: "bearer", users }));
    addImage(registry.repository("app"), "1");
    host = resources.add(await startCiHost({ args: ["--allow", `${user}=team-a/*`] }));
    homeOfUser = await host.makeHome(user);
    home = resources.add(makeTempFolder("home")).path;
    await writeConnectors();
    await host.waitForLog("connectors were added, removed or changed");
  });
  after(resources.stop);

  const yaml = (): string => connectorYaml({ ref: "team-a/hub", address: registry.url, login });
  const writeConnectors = (): Promise<void> => {
    host.keepSecret(login.password, login.password);
    return host.write("hub.yaml", yaml());
  };
  const records = (): string => join(host.state, "volumes");
  const startJob = async (name: string, atItsEnd = "true", uid = 0): Promise<RunningProgram> => {
    const command = ["--connectors", "team-a/hub", "--", "sh", "-c", job(name, atItsEnd)];
    const TMPDIR = uid === 0 ? home : homeOfUser;
    const started = await host.startJob(command, { HOME: home, TMPDIR }, uid);
    const [, token = ""] = await started.waitFor(new RegExp(`^(\\S+)\\n${name} is ready$`, "m"));
    tokens.set(name, token);
    return started;
  };
  const endJob = async (name: string, started: RunningProgram): Promise<void> => {
    await writeFile(join(host.folder, `${name}-ends`), "");
    await started.ended;
    expect(started.status(), started.output()).to.equal(0);
  };
  const mount = async (name: string, ...args: readonly string[]): Promise<string> => {
    const { path, token } = await host.mount(name, "team-a/hub", ...args);
    tokens.set(name, token);
    return path;
  };
  const statusOf = (name: string): Promise<number> => host.pullWith(String(tokens.get(name)));
  const isRefused = (name: string): Promise<unknown> =>
    eventually(
      async () => (await statusOf(name)) === 401,
      () => `the token of ${name} is still good`,
    );
  /** The folder of records on another file system, or back on its own. */
  const moveRecords = async (move: (copy: string) => void): Promise<void> => {
    await host.kill();
    const copy = makeTempFolder("records");
    await cp(records(), copy.path, { recursive: true });
    move(records());
    await cp(copy.path, records(), { recursive: true, force: true });
    await copy.stop();
    await host.start();
  };

  it("ends with no token that is good, no mount and no record, and no job has failed but the killed one", async () => {
    await moveRecords((folder) =>
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=128k,mode=700", "disk", folder]),
    );
    const leftBehind = "(cd $OCI_CONNECTOR_VOLUME && exec sleep 1000) > /dev/null 2>&1 &";
    const [killed, leaving, steady] = await Promise.all([
      startJob("killed"),
      startJob("leaving", leftBehind),
      startJob("steady", "true", user),
    ]);
    const forgotten = await mount("forgotten");
    await mount("persistent", "--persistent", "--for", "0");

    // A file of the folder is half written for a while, and then there is a new password.
    await writeFile(join(host.connectors, "hub.yaml"), yaml().slice(0, -30));
    await host.waitForLog('"level":"error"', "hub.yaml");
    login = { ...login, password: "rotated-under-load" };
    registry.auth.users.set(login.username, login.password);
    await writeConnectors();
    await eventually(
      async () => (await host.run("mount", "probe", "--connectors", "team-a/hub")).status === 0,
      () => "the folder is not taken again",
    );
    await host.unmount("probe");
    registry.auth.tokens.clear();

    // The disk gets full. A job is killed meanwhile, and the process is, too.
    for (const name of ["filler-1", "filler-2"]) {
      await writeFile(join(records(), name), Buffer.alloc(128 * 1024)).catch(() => undefined);
    }
    const refused = await host.run("mount", "full", "--connectors", "team-a/hub");
    expect(refused.stderr).to.include("ENOSPC");
    process.kill(killed.pid, "SIGKILL");
    await isRefused("killed");
    killed.signal("SIGKILL"); // its command goes on without it
    await moveRecords((folder) => execFileSync("umount", [folder]));
    for (const name of ["leaving", "steady", "forgotten", "persistent"]) {
      expect(await statusOf(name), name).to.equal(200);
    }
    expect(await statusOf("killed")).to.equal(401);

    // The process is upgraded under load, and a job ends and leaves something behind.
    await host.program().stop();
    await host.start();
    await endJob("leaving", leaving);
    expect(leaving.output()).to.include("has left something running");
    await isRefused("leaving");
    await endJob("steady", steady);
    await isRefused("steady");
    leaving.signal("SIGKILL");

    // Somebody cleans up by hand, and the machine is started again.
    execFileSync("umount", [forgotten]);
    await isRefused("forgotten");
    await mount("before the reboot");
    await host.reboot();
    await isRefused("before the reboot");
    await isRefused("persistent");
    const isThere = (): Promise<string | undefined> =>
      readFile(join(host.folder, "persistent/context.token"), "utf8").catch(() => undefined);
    const token = await eventually(isThere, () => "the persistent volume is not there again");
    tokens.set("persistent", token);
    expect(await mountsBelow(host.folder)).to.have.lengthOf(1);
    expect(await statusOf("persistent")).to.equal(200);
    await host.unmount("persistent");

    for (const name of tokens.keys()) expect(await statusOf(name), name).to.equal(401);
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    expect((await readdir(records())).filter((name) => name.endsWith(".json"))).to.deep.equal([]);
    await mkdir(join(host.folder, "run"), { recursive: true });
    expect(await readdir(join(host.folder, "run"))).to.deep.equal(["users"]);
    expect(killed.status()).to.equal(undefined);
    expect(await host.leaks()).to.deep.equal([]);
  });
});
