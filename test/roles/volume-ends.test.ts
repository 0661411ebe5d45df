/** When a volume ends, what is left of it then, and what the command line says of volumes. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { parse } from "smol-toml";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { type RunningProgram, runProgram, startProgram } from "../support/program.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

describe("the end of a volume in standalone mode", function () {
  this.timeout(30_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let host: CiHost;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    host = resources.add(await startCiHost());
    await host.write(
      "hub.yaml",
      connectorYaml({ ref: "team-a/hub", address: registry.url, login }),
    );
    await host.waitForLog("connectors were added, removed or changed");
  });
  afterEach(resources.stop);

  const at = (name: string): string => join(host.folder, name);
  const mount = (name: string, ...more: readonly string[]): Promise<Volume> =>
    host.mount(name, "team-a/hub", "--configuration", "docker-config", ...more);
  const pull = async (volume: Volume): Promise<number> =>
    (await volume.request("GET", "team-a/hub", "app/manifests/1")).status;
  const records = (): Promise<readonly string[]> => readdir(join(host.state, "volumes"));
  const startSleeper = async (cwd: string): Promise<RunningProgram> =>
    resources.add(await startProgram("sleep", ["1000"], { cwd }));

  /** The token is refused, and no mount and no record is left: by itself, soon. */
  async function expectEnd(volume: Volume): Promise<void> {
    await eventually(
      async () => (await pull(volume)) === 401,
      () => "the token is still good",
    );
    await eventually(
      async () => (await records()).length === 0 && (await mountsBelow(host.folder)).length === 0,
      () => "something is left of the volume",
    );
  }

  it("takes the token of a busy volume first, and its files, and says what it did", async () => {
    const volume = await mount("volume");
    const sleeper = await startSleeper(volume.path);
    const { status, stdout } = await host.run("unmount", "volume");
    expect({ status, stdout }).to.deep.equal({
      status: 0,
      stdout: `unmounted ${volume.path}, which is still used: its token is refused, its files are removed, and the empty mount goes with its last user\n`,
    });
    await expectEnd(volume);
    expect(await readdir(`/proc/${sleeper.pid}/cwd/`)).to.deep.equal([]);
    await mount("volume");
    expect(await readdir(`/proc/${sleeper.pid}/cwd/`)).to.deep.equal([]);
  });

  it("takes the token though the mount can't go, and goes on with it", async () => {
    const volume = await mount("volume");
    execFileSync("mount", ["-t", "tmpfs", "somebody", volume.path]);
    const { status, stderr } = await host.run("unmount", "volume");
    expect(status).to.equal(1);
    expect(stderr).to.include("refused from now on").and.include("tmpfs (somebody)");
    expect(await pull(volume)).to.equal(401);
    const listed = await host.run("volumes");
    expect(listed.stdout).to.match(/\/volume +team-a\/hub +root +\S+ +now +/);
    execFileSync("umount", [volume.path]);
    await expectEnd(volume);
  });

  it("comes when somebody else unmounts it, and removes its folder", async () => {
    const volume = await mount("volume");
    execFileSync("umount", [volume.path]);
    await expectEnd(volume);
    expect(host.logged("a volume has ended", "nothing is mounted")).to.have.lengthOf(1);
    expect(await readdir(host.folder)).not.to.include("volume");
    const { stderr } = await host.run("unmount", "volume");
    expect(stderr).to.include("no volume is mounted at");
  });

  it("comes when its folder is removed with all that is in it", async () => {
    await mkdir(at("job"));
    const volume = await mount("job/volume");
    execFileSync("umount", [volume.path]);
    await rm(at("job"), { recursive: true });
    await expectEnd(volume);
    expect(host.logged("can't be brought up to date")).to.deep.equal([]);
  });

  it("comes when its time is over", async () => {
    const volume = await mount("volume", "--for", "2s");
    expect(await pull(volume)).to.equal(200);
    await expectEnd(volume);
  });

  it("comes with a process, also one that nobody has waited for yet", async () => {
    const parent = resources.add(
      await startProgram("sh", ["-c", "sleep 1000 & echo $!; exec sleep 1000"]),
    );
    const [, pid = ""] = await parent.waitFor(/^(\d+)$/m);
    const volume = await mount("volume", "--pid", pid);
    expect((await host.run("volumes")).stdout).to.include(`, with process ${pid}`);
    expect(await pull(volume)).to.equal(200);
    process.kill(Number(pid), "SIGKILL");
    await eventually(
      async () => /\) Z /.test(await readFile(`/proc/${pid}/stat`, "utf8")),
      () => "the process is no zombie",
    );
    await expectEnd(volume);
    const late = await host.run("mount", "v", "--connectors", "team-a/hub", "--pid", pid);
    expect(late.status).to.equal(1);
    expect(late.stderr).to.equal(
      `oci-connector: --pid: found no process ${pid}, wanted one that runs\n`,
    );
  });

  it("comes also when no process of ours runs at that time", async () => {
    const timed = await mount("timed", "--for", "1s");
    const unmounted = await mount("unmounted");
    const kept = await mount("kept");
    await host.kill();
    execFileSync("umount", [unmounted.path]);
    await host.start();
    expect(await pull(unmounted)).to.equal(401);
    await eventually(
      async () => (await mountsBelow(host.folder)).length === 1,
      () => "a volume is left",
    );
    expect(await pull(timed)).to.equal(401);
    expect(await pull(kept)).to.equal(200);
  });

  it("comes with a reboot, unless it was asked for otherwise", async () => {
    const [plain, timed, persistent] = await Promise.all([
      mount("plain", "--for", "0"),
      mount("timed", "--for", "1h"),
      mount("persistent", "--persistent", "--for", "0"),
    ]);
    await host.reboot();
    for (const volume of [plain, timed, persistent]) expect(await pull(volume)).to.equal(401);
    await eventually(
      async () => (await mountsBelow(host.folder)).length === 1 && (await records()).length === 1,
      () => "it is not the persistent volume alone that is left",
    );
    const again: Volume = { ...persistent, token: await persistent.read("context.token") };
    const headers = { authorization: `Bearer ${again.token}` };
    const { status } = await again.request("GET", "team-a/hub", "app/manifests/1", { headers });
    expect(status).to.equal(200);
    expect((await host.run("volumes")).stdout).to.include("never, persistent");
  });

  it("is unknown to a volume that was recorded before there were ends", async () => {
    const volume = await mount("volume", "--for", "1s");
    await host.kill();
    const [name = ""] = await records();
    const path = join(host.state, "volumes", name);
    const { life, origin, ...old } = JSON.parse(await readFile(path, "utf8"));
    expect([life, origin]).not.to.include(undefined);
    await writeFile(path, JSON.stringify(old));
    await host.start();
    const { stdout } = await host.run("volumes", "--output", "json");
    expect(JSON.parse(stdout)).to.deep.include.members([
      {
        target: volume.path,
        connectors: ["team-a/hub"],
        user: "root",
        uid: 0,
        mountedAt: null,
        endsAt: null,
        pid: null,
        persistent: false,
        readOnly: false,
        lastUsedAt: null,
        usable: true,
      },
    ]);
    expect(await pull(volume)).to.equal(200);
  });

  it("comes on a full disk, too, and no mount does", async () => {
    const volume = await mount("volume");
    await host.program().stop();
    await cp(host.state, at("copy"), { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k,mode=700", "disk", host.state]);
    await cp(at("copy"), host.state, { recursive: true });
    for (const name of ["filler-1", "filler-2"]) {
      await writeFile(join(host.state, name), Buffer.alloc(60 * 1024)).catch(() => undefined);
    }
    await host.start();
    const refused = await host.run("mount", "other", "--connectors", "team-a/hub");
    expect(refused.status).to.equal(1);
    expect(refused.stderr).to.include("(ENOSPC)").and.include("make room");
    expect(await pull(volume)).to.equal(200);
    await host.unmount("volume");
    expect(await pull(volume)).to.equal(401);
    expect(await records()).to.deep.equal([]);
    await host.kill();
    await host.start();
    expect((await mountsBelow(host.folder)).map(({ path }) => path)).to.deep.equal([host.state]);
  });

  it("is seen in the list of volumes, with the last use", async () => {
    const empty = await host.run("volumes");
    expect(empty.stdout).to.equal("TARGET  CONNECTORS  USER  MOUNTED  ENDS  LAST USED\n");
    const used = await mount("used", "--read-only");
    await mount("with space", "--for", "0");
    await pull(used);
    const time = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ";
    const { stdout } = await host.run("volumes");
    expect(stdout).to.match(
      new RegExp(`^${used.path} +team-a/hub +root +${time} +${time} +${time}$`, "m"),
    );
    expect(stdout).to.match(
      new RegExp(`^"${at("with space")}" +team-a/hub +root +${time} +never +-$`, "m"),
    );
    const { stdout: json } = await host.run("volumes", "--output=json");
    const [first, second] = JSON.parse(json);
    expect(first).to.include({ target: used.path, readOnly: true, persistent: false, pid: null });
    const lifetimeMs = Date.parse(first.endsAt) - Date.parse(first.mountedAt);
    expect(lifetimeMs).to.equal(24 * 3600 * 1000);
    expect(second).to.include({ endsAt: null, lastUsedAt: null, readOnly: false });
  });

  it("is told where it is mounted", async () => {
    const timed = await host.run("mount", "timed", "--connectors", "team-a/hub");
    expect(timed.stdout).to.match(
      new RegExp(`^mounted ${at("timed")} until \\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ\n$`),
    );
    const unlimited = await host.run("mount", "u", "--connectors", "team-a/hub", "--for", "0");
    expect(unlimited.stdout).to.equal(`mounted ${at("u")}\n`);
  });

  describe("that is read-only", () => {
    it("lets no tool of root write into it, and gets fresh tokens all the same", async () => {
      const volume = await mount("volume", "--read-only");
      const write = await writeFile(join(volume.path, "config.json"), "{}").catch((e) => e.code);
      expect(write).to.equal("EROFS");
      expect(await rm(join(volume.path, "config.json")).catch((e) => e.code)).to.equal("EROFS");
      await host.write(
        "hub.yaml",
        connectorYaml({ ref: "team-a/hub", address: "http://moved.test:5000", login }),
      );
      const codes = new Set<string>();
      await eventually(
        async () => {
          const create = writeFile(join(volume.path, "new"), "");
          codes.add(
            await create.then(
              () => "written",
              (error) => error.code,
            ),
          );
          return (await volume.read("context.token")) !== volume.token;
        },
        () => "the volume was not refreshed",
      );
      expect([...codes]).to.deep.equal(["EROFS"]);
      await host.unmount("volume");
      await expectEnd(volume);
    });
  });

  describe("whose mounts the command does not see", () => {
    it("comes at once, with a sentence that says why", async () => {
      const command = `exec "$0" "$@"`;
      const args = ["mount", "--state", host.state, "--connectors", "team-a/hub", at("hidden")];
      const main = join(import.meta.dirname, "../../src/main.ts");
      const { status, stdout, stderr } = await runProgram("unshare", [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        command,
        process.execPath,
        main,
        ...args,
      ]);
      expect({ status, stdout }).to.deep.equal({ status: 1, stdout: "" });
      expect(stderr)
        .to.include(`a volume at ${at("hidden")}`)
        .and.include("PrivateTmp=");
      expect(await mountsBelow(host.folder)).to.deep.equal([]);
      expect(await records()).to.deep.equal([]);
    });
  });

  describe("whose path has a space or a quote", () => {
    it("is named in its files in a way that a shell and buildkitd read", async () => {
      await mkdir(at("My Job's"));
      const volume = await host.mount(
        ...([
          "My Job's/volume",
          "team-a/hub",
          "--configuration",
          "docker-config,buildkitd",
        ] as const),
      );
      const script = `set -a; . "$1"; exec cat "$SSL_CERT_FILE" "$NODE_EXTRA_CA_CERTS"`;
      const envFile = join(volume.path, ".env");
      const { status, stdout } = await runProgram("sh", ["-c", script, "sh", envFile]);
      expect(status).to.equal(0);
      const wanted = (await volume.read("ca-bundle.crt")) + (await volume.read("ca.crt"));
      expect(stdout).to.equal(wanted);
      expect(parse(await volume.read("buildkitd.toml")))
        .to.have.nested.property("registry")
        .that.deep.equals({
          [host.http]: { http: true },
          [host.https]: { http: false, ca: [`${volume.path}/ca.crt`] },
        });
      await host.unmount("My Job's/volume");
    });

    it("is refused where it has a control character", async () => {
      const { status, stderr } = await host.run("mount", "a\nb", "--connectors", "team-a/hub");
      expect(status).to.equal(1);
      expect(stderr).to.include("without control characters");
    });

    it("is refused where it is not UTF-8, since the volume would be somewhere else", async () => {
      const mount = await host.run("mount", "a\ufffdb", "--connectors", "team-a/hub");
      expect(mount.status).to.equal(1);
      expect(mount.stderr).to.include("wanted a path in UTF-8");
    });
  });
});
