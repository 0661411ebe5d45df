import { execFile, execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";
import { Unavailable } from "../../src/connector/platform.ts";
import type { NodeGetVolumeStatsResponse__Output as NodeGetVolumeStatsResponse } from "../../src/csi/generated/csi/v1/NodeGetVolumeStatsResponse.ts";
import { systemMounts } from "../../src/csi/volume-mounts.ts";
import {
  type Driver,
  foundConnector,
  hour,
  invoke,
  mountIdsAt,
  mountOptionsAt,
  podInfo,
  publishRequest,
  requireMounts,
  requireOtherUsers,
  start,
  startDriver,
  tokenExpiry,
  tokenMark,
  tokensJson,
} from "./csi-driver.ts";

const run = promisify(execFile);
const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens";

describe("the CSI volume node", function () {
  this.timeout(20_000);
  let driver: Driver;
  let target: string;

  before(requireMounts);
  beforeEach(async () => {
    driver = await startDriver();
    target = join(driver.folder, "mount");
  });
  afterEach(() => driver.end());

  const read = (path: string) => readFile(join(target, path), "utf8");
  const isThere = () =>
    stat(target).then(
      () => true,
      () => false,
    );
  const stats = () =>
    invoke<NodeGetVolumeStatsResponse>((done) =>
      driver.client.nodeGetVolumeStats({ volumeId: `csi-of-${target}`, volumePath: target }, done),
    );
  const condition = async () => (await stats()).volumeCondition;

  describe("that publishes a volume", () => {
    it("mounts a small tmpfs that runs nothing, and writes the files into it", async () => {
      const attributes = {
        connectors: "harbor,team-b/ghcr",
        "configuration.names": "docker-config,registries-conf",
      };
      await driver.publish(publishRequest(target, { attributes }));
      expect(await mountOptionsAt(target)).to.include.members([
        "size=2048k",
        "nr_inodes=1024",
        "mode=755",
        "nosuid",
        "nodev",
        "noexec",
      ]);
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
      expect(await read("ca.crt")).to.equal("a certificate\n");
      const hosts = Object.keys(JSON.parse(await read("config.json")).auths);
      expect(hosts).to.deep.equal([
        "c-harbor.team-a.svc.cluster.local",
        "c-ghcr.team-b.svc.cluster.local",
      ]);
      expect(await read(`certs.d/${hosts[0]}/ca.crt`)).to.equal("a certificate\n");
    });

    it("says so once, by its ids", async () => {
      await driver.publish(publishRequest(target));
      await driver.publish(publishRequest(target));
      const [line, ...others] = driver.logged("volume published");
      expect(line).to.include({
        volume: `csi-of-${target}`,
        target,
        pod: "team-a/build-1",
        connectors: "team-a/harbor",
      });
      expect(others).to.deep.equal([]);
      expect(driver.said).to.have.lengthOf(1);
    });

    it("lets files name each other where tools see the volume at its target path", async () => {
      await driver.end();
      driver = await startDriver({ toolsSeeTargetPath: true });
      target = join(driver.folder, "mount");
      const attributes = {
        connectors: "harbor",
        "configuration.names": "buildkitd",
        "configuration.params": '{"buildkitd": {"scheme": "https"}}',
      };
      await driver.publish(publishRequest(target, { attributes }));
      expect(await read("buildkitd.toml")).to.include(`"${target}/ca.crt"`);
    });

    it("keeps a record in the volume that has no token in it", async () => {
      await driver.publish(publishRequest(target));
      expect(JSON.parse(await read("..data/..volume.json"))).to.deep.equal({
        volumeId: `csi-of-${target}`,
        connectors: ["team-a/harbor"],
        tokenExpiresAt: tokenExpiry.toISOString(),
      });
    });

    it("lets everybody read who sees the volume", async function () {
      await requireOtherUsers(this);
      await driver.publish(publishRequest(target));
      const cat = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "cat"];
      const { stdout } = await run("setpriv", [...cat, join(target, "context.token")]);
      expect(stdout).to.equal(`${tokenMark}-1`);
      expect((await stat(join(target, "context.token"))).mode & 0o777).to.equal(0o444);
    });

    it("lets a group read, and nobody else", async function () {
      await requireOtherUsers(this);
      const attributes = { connectors: "harbor", "configuration.names": "registries-conf" };
      await driver.publish(
        publishRequest(target, { attributes, mount: { volumeMountGroup: "2000" } }),
      );
      const as = (group: string, path: string) =>
        run("setpriv", [
          "--reuid",
          "65534",
          "--regid",
          group,
          "--clear-groups",
          "cat",
          join(target, path),
        ]).then(
          ({ stdout }) => stdout,
          ({ stderr }) => stderr,
        );
      expect(await as("2000", "context.token")).to.equal(`${tokenMark}-1`);
      const nested = "certs.d/c-harbor.team-a.svc.cluster.local/ca.crt";
      expect(await as("2000", nested)).to.equal("a certificate\n");
      expect(await as("2001", "context.token")).to.include("Permission denied");
      const folder = await stat(target);
      expect([folder.mode & 0o777, folder.uid, folder.gid]).to.deep.equal([0o750, 0, 2000]);
      const file = await stat(join(target, "context.token"));
      expect([file.mode & 0o777, file.uid, file.gid]).to.deep.equal([0o440, 0, 2000]);
    });

    it("asks for what the Pod's ServiceAccount may do", async () => {
      const reviewed: unknown[] = [];
      driver.world.mayUse = async (...question) => {
        reviewed.push(question);
        return { ok: true, value: undefined };
      };
      await driver.publish(publishRequest(target, { attributes: { connectors: "team-b/ghcr" } }));
      const user = "system:serviceaccount:team-a:builder";
      const groups = [
        "system:serviceaccounts",
        "system:serviceaccounts:team-a",
        "system:authenticated",
      ];
      const ref = { namespace: "team-b", name: "ghcr" };
      expect(reviewed).to.deep.equal([[{ user, groups }, ref, "pull"]]);
    });

    it("asks for nobody where there is no ServiceAccount", async () => {
      const reviewed: string[] = [];
      driver.world.mayUse = async ({ user }) => {
        reviewed.push(user);
        return { ok: true, value: undefined };
      };
      const { "csi.storage.k8s.io/serviceAccount.name": _, ...others } = podInfo;
      const volumeContext = { connectors: "harbor", ...others };
      await driver.publish(publishRequest(target, { volumeContext }));
      expect(reviewed).to.deep.equal([""]);
    });

    it("takes the token from the volume's context where the secrets have none", async () => {
      const volumeContext = {
        connectors: "harbor",
        ...podInfo,
        [tokensKey]: tokensJson(`${tokenMark}-2`, tokenExpiry),
      };
      await driver.publish(publishRequest(target, { volumeContext, secrets: {} }));
      expect(await read("context.token")).to.equal(`${tokenMark}-2`);
    });

    it("takes the token from the secrets where both have one", async () => {
      const volumeContext = {
        connectors: "harbor",
        ...podInfo,
        [tokensKey]: tokensJson(`${tokenMark}-2`, tokenExpiry),
      };
      await driver.publish(publishRequest(target, { volumeContext }));
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
    });

    it("publishes a connector that is not valid: its files follow from its name", async () => {
      driver.world.findConnector = async () => ({ state: "invalid", reason: "spec.address: no" });
      await driver.publish(publishRequest(target));
      expect(await read("connector.status.proxyAddress")).to.include("/connectors/harbor");
      expect(await condition()).to.deep.equal({
        abnormal: true,
        message: 'connector "team-a/harbor" is not valid: spec.address: no',
      });
    });

    it("uses a folder that a reboot has left", async () => {
      await mkdir(target);
      await driver.publish(publishRequest(target));
      expect(await mountIdsAt(target)).to.have.lengthOf(1);
    });

    it("knows its mount under a path with signs that the kernel escapes", async () => {
      const target = join(driver.folder, "a b\t#\\040\nü\x01\x1b\r\x7f\u0085");
      await driver.publish(publishRequest(target));
      await driver.publish(publishRequest(target));
      await driver.unpublish(target);
      expect(await readdir(driver.folder)).to.deep.equal(["csi.sock"]);
    });

    it("knows its mount behind a symbolic link", async () => {
      await mkdir(join(driver.folder, "real"));
      await symlink("real", join(driver.folder, "link"));
      const [real, link] = ["real", "link"].map((name) => join(driver.folder, name, "mount"));
      if (!real || !link) throw new Error();
      const request = { volumeId: "v" };
      await Promise.all([real, link].map((path) => driver.publish(publishRequest(path, request))));
      expect(await mountIdsAt(real)).to.have.lengthOf(1);
      await driver.unpublish(link, "v");
      expect(await mountIdsAt(real)).to.deep.equal([]);
    });
  });

  describe("that is asked for a volume that can't be", () => {
    type Request = Parameters<typeof publishRequest>[1];
    const attempt = async (request: Request, parts: readonly string[]) => {
      const error = await driver.failure(driver.publish(publishRequest(target, request)));
      for (const part of parts) expect(error.details).to.include(part);
      expect(await mountIdsAt(target)).to.deep.equal([]);
      expect(await isThere()).to.equal(false);
      return error;
    };
    /** @param reason the code in the log; the kubelet gets one by which it keeps its record of the volume */
    const refused = async (request: Request, reason: string, ...parts: readonly string[]) => {
      const error = await attempt(request, parts);
      expect(error.code).to.equal(reason === "RESOURCE_EXHAUSTED" ? reason : "UNAVAILABLE");
      const line = driver.logged("NodePublishVolume failed").at(-1);
      expect(line?.reason).to.equal(`${reason}: ${error.details}`);
      return error;
    };
    /** What no kubelet asks. */
    const impossible = async (request: Request, ...parts: readonly string[]) => {
      expect((await attempt(request, parts)).code).to.equal("INVALID_ARGUMENT");
    };

    it("names everything that is wrong in one message", async () => {
      const volumeContext = { connectors: "Harbor", colour: "blue" };
      const mount = { fsType: "ext4", mountFlags: ["rw"], volumeMountGroup: "users" };
      await refused(
        { readonly: false, volumeContext, mount },
        "INVALID_ARGUMENT",
        "csi.readOnly: found false",
        "csi.storage.k8s.io/ephemeral: found",
        "csi.storage.k8s.io/pod.namespace: found",
        "podInfoOnMount",
        '"colour"',
        'connectors: found "Harbor"',
        'csi.fsType: found "ext4"',
        'mount_flags: found ["rw"]',
        'securityContext.fsGroup: found "users"',
      );
    });

    it("wants an id", () => impossible({ volumeId: "" }, "volume_id"));

    it("wants an absolute, normalised path", async () => {
      for (const targetPath of [
        "",
        "/",
        "a",
        "./a",
        `${target}/`,
        `${target}/../b`,
        "/a//b",
        "/a\0",
      ]) {
        await impossible({ targetPath }, "target_path");
      }
    });

    it("wants a path where the kernel makes a folder, and says why it does not", async () => {
      const loop = join(driver.folder, "loop");
      await symlink("loop", loop);
      await writeFile(join(driver.folder, "file"), "");
      for (const [targetPath, code] of [
        ["/proc/self/x", "ENOENT"],
        ["/sys/x", "EPERM"],
        [join(driver.folder, "x".repeat(300)), "ENAMETOOLONG"],
      ] as const) {
        await refused({ targetPath }, "INVALID_ARGUMENT", "target_path", code);
      }
      for (const [targetPath, code] of [
        [join(driver.folder, "x".repeat(300), "mount"), "ENAMETOOLONG"],
        [join(loop, "mount"), "ELOOP"],
      ] as const) {
        await impossible({ targetPath }, "target_path", code);
      }
    });

    it("wants the parent folder", () =>
      refused(
        { targetPath: join(target, "a") },
        "FAILED_PRECONDITION",
        "its parent folder does not exist",
      ));

    it("wants a mount", async () => {
      await impossible({ volumeCapability: { block: {} } }, 'found "block"');
      await impossible({ volumeCapability: null }, "volume_capability");
    });

    it("wants a group that there can be", async () => {
      for (const volumeMountGroup of ["-1", "4294967295", "1e3", "root"]) {
        await refused({ mount: { volumeMountGroup } }, "INVALID_ARGUMENT", volumeMountGroup);
      }
    });

    it("tells of a configuration that there is none of", () =>
      refused(
        { attributes: { connectors: "harbor", "configuration.names": "npmrc" } },
        "INVALID_ARGUMENT",
        '"npmrc"',
        "docker-config",
      ));

    it("tells of a file to leave out that there is none of", () =>
      refused(
        { attributes: { connectors: "harbor", "configuration.names": "!contxt.token" } },
        "INVALID_ARGUMENT",
        "!contxt.token",
      ));

    it("tells of a missing connector", async () => {
      driver.world.findConnector = async () => ({ state: "missing", reason: "make it" });
      const { details } = await refused({}, "NOT_FOUND");
      expect(details).to.equal('connector "team-a/harbor" not found: make it');
    });

    it("tells of a missing right, with what the surroundings say of it", async () => {
      driver.world.mayUse = async () => ({ ok: false, reason: "create the Role x" });
      await refused({}, "PERMISSION_DENIED", 'connector "team-a/harbor": create the Role x');
    });

    it("does not tell which connectors others have to those who may not use them", async () => {
      driver.world.findConnector = async () => ({ state: "missing", reason: "make it" });
      driver.world.mayUse = async () => ({ ok: false, reason: "create the Role x" });
      const attributes = { connectors: "team-b/ghcr" };
      const { details } = await refused({ attributes }, "PERMISSION_DENIED");
      expect(details).not.to.include("not found");
      await refused({ attributes: { connectors: "ghcr" } }, "NOT_FOUND", "make it");
    });

    it("tells of all connectors at once", async () => {
      driver.world.findConnector = async (ref) =>
        ref.name === "a" ? { state: "missing", reason: "make it" } : foundConnector(ref);
      driver.world.mayUse = async (_who, { name }) =>
        name === "b" ? { ok: false, reason: "create the Role" } : { ok: true, value: undefined };
      await refused({ attributes: { connectors: "c,a,b" } }, "NOT_FOUND", "make it; ", "the Role");
    });

    it("asks for another attempt while the surroundings are away", async () => {
      driver.world.mayUse = async () => {
        throw new Unavailable("the API server is away");
      };
      await refused({}, "UNAVAILABLE", "the API server is away");
    });

    it("says nothing outward of an error that nobody expected, and all of it in the log", async () => {
      driver.world.findConnector = async () => {
        throw new TypeError("a bug");
      };
      const { details } = await refused({}, "INTERNAL");
      expect(details).to.equal("internal error; see the driver's log");
      expect(driver.logged("NodePublishVolume failed")[0]).to.include({
        level: "error",
        volume: `csi-of-${target}`,
        target,
        error: "TypeError: a bug",
      });
    });

    it("asks for another attempt without a usable token, and names the audience alone", async () => {
      const texts = [
        undefined,
        "",
        tokenMark,
        `{"connectors-proxy": "${tokenMark}"`,
        `"${tokenMark}"`,
        `["${tokenMark}"]`,
        "null",
        `{"other": {"token": "${tokenMark}", "expirationTimestamp": "2030-01-01T00:00:00Z"}}`,
        `{"connectors-proxy": {"token": "${tokenMark}"}}`,
        `{"connectors-proxy": {"token": "${tokenMark}", "expirationTimestamp": "${tokenMark}"}}`,
        `{"connectors-proxy": {"token": "", "expirationTimestamp": "2030-01-01T00:00:00Z"}}`,
        `{"connectors-proxy": {"token": ["${tokenMark}"], "expirationTimestamp": "2030-01-01T00:00:00Z"}}`,
      ];
      for (const text of texts) {
        const secrets: Record<string, string> = text === undefined ? {} : { [tokensKey]: text };
        const { details } = await refused({ secrets }, "UNAVAILABLE", "tokenRequests");
        expect(details).to.include('"connectors-proxy"').and.not.include("other");
      }
    });

    it("asks for another attempt where the token has expired", async () => {
      driver.world.now = () => tokenExpiry.getTime();
      await refused({}, "UNAVAILABLE", tokenExpiry.toISOString());
    });

    it("shows no token that no header can carry", () =>
      refused({ token: `${tokenMark}\n` }, "INTERNAL"));

    it("says what the limit is where the files don't fit", async () => {
      driver.world.caCertificate = () => "x".repeat(3_000_000);
      await refused({}, "RESOURCE_EXHAUSTED", "16 MiB");
    });

    it("leaves a file, and a symbolic link, where they are", async () => {
      await writeFile(join(driver.folder, "file"), "mine");
      await mkdir(join(driver.folder, "elsewhere"));
      await symlink("elsewhere", join(driver.folder, "link"));
      for (const [name, found] of [
        ["file", "a file"],
        ["link", "a symbolic link"],
      ] as const) {
        const path = join(driver.folder, name);
        const error = await driver.failure(driver.publish(publishRequest(path)));
        expect(error.code).to.equal("UNAVAILABLE");
        expect(error.details).to.include(`found ${found}`);
      }
      const below = driver.publish(publishRequest(join(driver.folder, "file", "volume")));
      expect((await driver.failure(below)).details).to.include(
        "its parent folder does not exist; create it",
      );
      await driver.unpublish(join(driver.folder, "file", "volume"));
      expect(await readFile(join(driver.folder, "file"), "utf8")).to.equal("mine");
      expect(await readdir(join(driver.folder, "elsewhere"))).to.deep.equal([]);
    });

    it("leaves what others have mounted, and names it", async () => {
      await mkdir(target);
      execFileSync("mount", ["-t", "tmpfs", "somebody else's", target]);
      const calls = [driver.publish(publishRequest(target)), driver.unpublish(target)];
      // All are waited for at once: one that fails while another is waited for would be nobody's.
      const errors = await Promise.all(calls.map(driver.failure));
      expect(errors.map(({ code }) => code)).to.deep.equal(["UNAVAILABLE", "FAILED_PRECONDITION"]);
      for (const { details } of errors) expect(details).to.include("tmpfs (somebody else's)");
      expect(await mountIdsAt(target)).to.have.lengthOf(1);
    });

    it("says what mount(8) said", async () => {
      await driver.end();
      driver = await startDriver({
        mounts: {
          ...systemMounts,
          run: () => systemMounts.run("mount", ["-t", "tmpfs", "-o", "bogus", "x", driver.folder]),
        },
      });
      target = join(driver.folder, "mount");
      await refused({}, "INTERNAL", "can't mount", "bad option");
    });
  });

  describe("that publishes a volume which needs more room than others", () => {
    const large = (letter: string) => {
      driver.world.caCertificate = () => letter.repeat(1_000_000);
    };

    it("gives it the room, also when the need comes later, and while both generations are there", async () => {
      for (const name of ["large-at-once", "large-later"]) {
        const path = join(driver.folder, name);
        driver.world.caCertificate = () => "small";
        if (name === "large-later") await driver.publish(publishRequest(path));
        for (const letter of ["a", "b", "c"]) {
          large(letter);
          await driver.publish(publishRequest(path));
          expect((await readFile(join(path, "ca.crt"), "utf8"))[0]).to.equal(letter);
        }
        const options = await mountOptionsAt(path);
        expect(options).to.include.members(["nosuid", "nodev", "noexec", "rw"]);
      }
    });

    it("refreshes 64 connectors with all configurations", async () => {
      const names = Array.from({ length: 64 }, (_, index) => `c${index}`);
      const attributes = {
        connectors: names.join(","),
        "configuration.names": "docker-config,buildkitd,registries-conf,containerd",
        "configuration.params": JSON.stringify({
          containerd: { mirror: true },
          "registries-conf": { mirror: true },
          buildkitd: { mirror: true },
        }),
      };
      for (const token of ["1", "2", "3", "4"].map((end) => `${tokenMark}-${end}`)) {
        await driver.publish(publishRequest(target, { attributes, token }));
        expect(await read("context.token")).to.equal(token);
      }
    });
  });

  describe("that publishes a volume which is read-only for root, too", () => {
    const readOnly = { mount: { mountFlags: ["ro"] } };
    const flags = async (): Promise<string[]> => (await mountOptionsAt(target)).slice(0, 4);

    it("lets nobody write into it, and refreshes and ends it all the same", async () => {
      await driver.publish(publishRequest(target, readOnly));
      expect(await flags()).to.have.members(["ro", "nosuid", "nodev", "noexec"]);
      const write = (): Promise<void> => writeFile(join(target, "config.json"), "{}");
      expect(await write().catch((error) => error.code)).to.equal("EROFS");
      const token = `${tokenMark}-2`;
      await driver.publish(publishRequest(target, { ...readOnly, token }));
      expect(await read("context.token")).to.equal(token);
      expect(await flags()).to.have.members(["ro", "nosuid", "nodev", "noexec"]);
      await driver.unpublish(target);
      expect(await isThere()).to.equal(false);
    });

    it("gives it room where it needs more, and makes it read-only again", async () => {
      await driver.publish(publishRequest(target, readOnly));
      driver.world.caCertificate = () => "x".repeat(500_000);
      await driver.publish(publishRequest(target, readOnly));
      expect(await read("ca.crt")).to.have.lengthOf(500_000);
      expect(await flags()).to.have.members(["ro", "nosuid", "nodev", "noexec"]);
    });
  });

  describe("that publishes a volume again", () => {
    const later = new Date(start.getTime() + hour / 2);
    const renewed = (token: string) => ({
      token,
      secrets: { [tokensKey]: tokensJson(token, new Date(later.getTime() + hour)) },
    });
    let mountId: string[];

    beforeEach(async () => {
      const attributes = {
        connectors: "harbor",
        "configuration.names": "buildkitd",
        "configuration.params": '{"buildkitd": {"mirror": true}}',
      };
      await driver.publish(publishRequest(target, { attributes }));
      mountId = await mountIdsAt(target);
    });
    afterEach(async () => {
      expect(await mountIdsAt(target)).to.deep.equal(mountId);
    });

    it("renews the files in the same mount", async () => {
      await driver.publish(publishRequest(target, renewed(`${tokenMark}-2`)));
      expect(await read("context.token")).to.equal(`${tokenMark}-2`);
      expect(driver.logged("volume refreshed")).to.have.lengthOf(1);
    });

    it("writes nothing where nothing has changed", async () => {
      await driver.publish(publishRequest(target));
      const before = await readdir(target);
      await driver.publish(publishRequest(target));
      expect(await readdir(target)).to.deep.equal(before);
    });

    it("gives a fresh token though the connector is gone, and says so in the condition", async () => {
      driver.world.findConnector = async () => ({ state: "missing", reason: "deleted" });
      await driver.publish(publishRequest(target, renewed(`${tokenMark}-2`)));
      expect(await read("context.token")).to.equal(`${tokenMark}-2`);
      expect(await condition()).to.deep.equal({
        abnormal: true,
        message: 'connector "team-a/harbor" not found: deleted',
      });
    });

    it("gives a fresh token though the right is gone, and says so in the condition", async () => {
      driver.world.mayUse = async () => ({ ok: false, reason: "no Role" });
      await driver.publish(publishRequest(target, renewed(`${tokenMark}-2`)));
      expect(await read("context.token")).to.equal(`${tokenMark}-2`);
      expect(await condition()).to.deep.equal({
        abnormal: true,
        message: 'connector "team-a/harbor": no Role',
      });
      driver.world.mayUse = async () => ({ ok: true, value: undefined });
      await driver.publish(publishRequest(target, renewed(`${tokenMark}-2`)));
      expect(await condition()).to.deep.equal({
        abnormal: false,
        message: "the volume is in order",
      });
    });

    const failures: Record<string, () => Parameters<typeof publishRequest>[1]> = {
      "the surroundings are away": () => {
        driver.world.findConnector = async () => {
          throw new Unavailable("the API server is away");
        };
        return renewed(`${tokenMark}-2`);
      },
      "there is no token": () => ({ secrets: {} }),
      "the attributes are refused": () => ({ attributes: { connectors: "" } }),
      "it is no longer read-only": () => ({ readonly: false }),
      "the files don't fit": () => {
        driver.world.caCertificate = () => "x".repeat(3_000_000);
        return renewed(`${tokenMark}-2`);
      },
      "something nobody expected happens": () => {
        driver.world.caCertificate = () => {
          throw new TypeError("a bug");
        };
        return renewed(`${tokenMark}-2`);
      },
    };
    for (const [name, fail] of Object.entries(failures)) {
      it(`keeps the last files where ${name}: no failure until their token expires`, async () => {
        const last = await read("..data/config.json").catch(() => read("..data/.env"));
        const request = publishRequest(target, fail());
        await driver.publish(request);
        await driver.publish(request);
        expect(await read("..data/.env")).to.equal(last);
        expect(driver.logged("the volume has problems")).to.have.lengthOf(1);
        expect(await condition()).to.have.property("abnormal", true);

        driver.world.now = () => tokenExpiry.getTime();
        const error = await driver.failure(driver.publish(request));
        expect(error.code).to.equal("UNAVAILABLE");
        expect(error.details).to.include("out of date");
        expect((await condition())?.message).to.include("expired at 2026-01-01T01:00:00.000Z");
        expect(await read("..data/.env")).to.equal(last);

        driver.world.now = () => later.getTime();
        driver.world.findConnector = async (ref) => foundConnector(ref);
        driver.world.caCertificate = () => "a certificate\n";
        await driver.publish(publishRequest(target, renewed(`${tokenMark}-3`)));
        expect(await read("context.token")).to.equal(`${tokenMark}-3`);
        expect(driver.logged("the volume is in order again")).to.have.lengthOf(1);
        expect(await condition()).to.deep.equal({
          abnormal: false,
          message: "the volume is in order",
        });
      });
    }

    it("logs the cause of what nobody expected", async () => {
      driver.world.caCertificate = () => {
        throw new TypeError("a bug");
      };
      await driver.publish(publishRequest(target));
      const [line] = driver.logged("the volume has problems");
      expect(line).to.include({ error: "TypeError: a bug" });
    });

    it("does not take another volume's place", async () => {
      const request = publishRequest(target, { volumeId: "another" });
      const error = await driver.failure(driver.publish(request));
      expect(error.code).to.equal("ALREADY_EXISTS");
      expect(error.details).to.include(`csi-of-${target}`);
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
    });
  });

  describe("that finds what a killed driver has left", () => {
    const source = "connectors-csi";
    const mountOwn = () => execFileSync("mount", ["-t", "tmpfs", source, target]);

    it("uses the mount that has no files yet", async () => {
      await mkdir(target);
      mountOwn();
      const before = await mountIdsAt(target);
      await driver.publish(publishRequest(target));
      expect(await mountIdsAt(target)).to.deep.equal(before);
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
    });

    it("undoes a mount that has no files yet where it can't publish", async () => {
      await mkdir(target);
      mountOwn();
      await driver.failure(driver.publish(publishRequest(target, { readonly: false })));
      expect(await isThere()).to.equal(false);
    });

    it("unmounts what lies on top of a volume", async () => {
      await driver.publish(publishRequest(target));
      const before = await mountIdsAt(target);
      mountOwn();
      mountOwn();
      await driver.publish(publishRequest(target));
      expect(await mountIdsAt(target)).to.deep.equal(before);
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
      expect(driver.logged("volume published")).to.have.lengthOf(1);
    });

    it("unmounts all of them", async () => {
      await driver.publish(publishRequest(target));
      mountOwn();
      await driver.unpublish(target);
      expect(await isThere()).to.equal(false);
    });

    it("keeps a volume whose record can't be read", async () => {
      await driver.publish(publishRequest(target));
      await writeFile(join(target, "..data", "..volume.json"), "{");
      driver.world.findConnector = async () => {
        throw new Unavailable("away");
      };
      expect((await driver.failure(driver.publish(publishRequest(target)))).code).to.equal(
        "UNAVAILABLE",
      );
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
      expect((await condition())?.message).to.include("no files, or no record of them");
    });
  });

  describe("that unpublishes a volume", () => {
    it("unmounts it and removes the folder", async () => {
      await driver.publish(publishRequest(target));
      await driver.unpublish(target);
      expect(await mountIdsAt(target)).to.deep.equal([]);
      expect(await isThere()).to.equal(false);
      expect(driver.logged("volume unpublished")).to.have.lengthOf(1);
    });

    it("is done where there is none, or not even a folder", async () => {
      await driver.unpublish(target);
      await driver.unpublish(join(target, "below", "nothing"));
      await mkdir(target);
      await driver.unpublish(target);
      expect(await isThere()).to.equal(false);
      expect(driver.said).to.deep.equal([]);
    });

    it("leaves a folder that holds something, and a file", async () => {
      await mkdir(target);
      await writeFile(join(target, "file"), "mine");
      await driver.publish(publishRequest(target));
      await driver.unpublish(target);
      await driver.unpublish(join(target, "file"));
      expect(await read("file")).to.equal("mine");
    });

    it("wants an id and a path", async () => {
      for (const call of [
        driver.unpublish(target, ""),
        driver.unpublish("", "v"),
        driver.unpublish("a", "v"),
      ]) {
        expect((await driver.failure(call)).code).to.equal("INVALID_ARGUMENT");
      }
    });

    it("leaves a folder that can't be removed", async () => {
      const fixed = join(driver.folder, "fixed");
      await mkdir(fixed);
      execFileSync("mount", ["-t", "tmpfs", "fixed", fixed]);
      target = join(fixed, "mount");
      await mkdir(target);
      execFileSync("mount", ["-o", "remount,ro", fixed]);
      await driver.publish(publishRequest(target));
      await driver.unpublish(target);
      await driver.unpublish(target);
      expect(await mountIdsAt(target)).to.deep.equal([]);
      expect(await isThere()).to.equal(true);
    });

    it("wants a path that the kernel takes, and says why it does not", async () => {
      for (const [path, code] of [
        [join(driver.folder, "x".repeat(300)), "ENAMETOOLONG"],
        [join(driver.folder, "x".repeat(300), "mount"), "ENAMETOOLONG"],
      ] as const) {
        const error = await driver.failure(driver.unpublish(path));
        expect(error.code, path).to.equal("INVALID_ARGUMENT");
        expect(error.details).to.include("target_path").and.include(code);
      }
    });

    it("fails, to be tried again, while somebody works in it", async () => {
      await driver.publish(publishRequest(target));
      const busy = execFile("sleep", ["60"], { cwd: target });
      try {
        const error = await driver.failure(driver.unpublish(target));
        expect(error.details).to.include("busy");
      } finally {
        busy.kill();
      }
      await new Promise((resolve) => busy.once("close", resolve));
      await driver.unpublish(target);
      expect(await isThere()).to.equal(false);
    });
  });

  describe("that is given an id and a path that don't belong together", () => {
    const both = (held: string, asked: string) =>
      `holds the volume "${held}", not "${asked}": it stays as it is`;

    it("does not unpublish another volume, and names both", async () => {
      await driver.publish(publishRequest(target));
      const before = await mountIdsAt(target);
      const error = await driver.failure(driver.unpublish(target, "another"));
      expect(error.code).to.equal("NOT_FOUND");
      expect(error.details).to.include(both(`csi-of-${target}`, "another"));
      expect(await mountIdsAt(target)).to.deep.equal(before);
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
      await driver.unpublish(target);
      expect(await isThere()).to.equal(false);
    });

    it("does not unpublish another volume below a mount without a record", async () => {
      await driver.publish(publishRequest(target));
      execFileSync("mount", ["-t", "tmpfs", "connectors-csi", target]);
      const error = await driver.failure(driver.unpublish(target, "another"));
      expect(error.details).to.include(both(`csi-of-${target}`, "another"));
      expect(await read("context.token")).to.equal(`${tokenMark}-1`);
    });

    it("unpublishes a mount without a readable record, whatever the id", async () => {
      await driver.publish(publishRequest(target));
      await writeFile(join(target, "..data", "..volume.json"), "{");
      await driver.unpublish(target, "another");
      expect(await isThere()).to.equal(false);
    });

    it("says nothing of another volume's statistics, and names both", async () => {
      await driver.publish(publishRequest(target));
      const call = invoke((done) =>
        driver.client.nodeGetVolumeStats({ volumeId: "another", volumePath: target }, done),
      );
      const error = await driver.failure(call);
      expect(error.code).to.equal("NOT_FOUND");
      expect(error.details).to.include(`"csi-of-${target}"`).and.include('"another"');
    });
  });

  describe("whose process keeps records of its own", () => {
    beforeEach(async () => {
      await driver.end();
      driver = await startDriver({ mayRemoveUnrecorded: (volumeId) => volumeId === "known" });
      target = join(driver.folder, "mount");
    });

    it("leaves a mount without a record to others, unless it knows the volume", async () => {
      await mkdir(target);
      execFileSync("mount", ["-t", "tmpfs", "connectors-csi", target]);
      const error = await driver.failure(driver.unpublish(target, "unknown"));
      expect(error.code).to.equal("NOT_FOUND");
      expect(error.details).to.include('"unknown"').and.include("umount");
      expect(await mountIdsAt(target)).to.have.lengthOf(1);
      await driver.unpublish(target, "known");
      expect(await isThere()).to.equal(false);
    });

    it("leaves an empty folder to others, unless it knows the volume", async () => {
      await mkdir(target);
      await driver.unpublish(target, "unknown");
      expect(await isThere()).to.equal(true);
      await driver.unpublish(target, "known");
      expect(await isThere()).to.equal(false);
    });

    it("unpublishes the volume that the record at its target names", async () => {
      await driver.publish(publishRequest(target));
      await driver.unpublish(target);
      expect(await isThere()).to.equal(false);
    });
  });

  describe("that is asked for a volume's statistics", () => {
    it("counts bytes and inodes", async () => {
      await driver.publish(publishRequest(target));
      const [bytes, inodes] = (await stats()).usage;
      expect(bytes).to.include({ unit: "BYTES", total: 2 * 1024 * 1024 });
      expect(inodes).to.include({ unit: "INODES", total: 1024 });
      for (const usage of [bytes, inodes]) {
        expect(usage?.used).to.be.above(0);
        expect((usage?.used ?? 0) + (usage?.available ?? 0)).to.equal(usage?.total);
      }
      expect(await condition()).to.deep.equal({
        abnormal: false,
        message: "the volume is in order",
      });
    });

    it("tells that a connector is gone before the next publish", async () => {
      await driver.publish(publishRequest(target));
      driver.world.findConnector = async () => ({ state: "missing", reason: "deleted" });
      expect((await condition())?.message).to.equal('connector "team-a/harbor" not found: deleted');
      driver.world.findConnector = async () => {
        throw new Unavailable("away");
      };
      expect(await condition()).to.have.property("abnormal", false);
    });

    it("finds nothing where nothing is mounted", async () => {
      await mkdir(target);
      expect((await driver.failure(stats())).code).to.equal("NOT_FOUND");
      target = join(target, "below", "nothing");
      expect((await driver.failure(stats())).code).to.equal("NOT_FOUND");
    });

    it("finds nothing at a path that can hold no volume", async () => {
      const loop = join(driver.folder, "loop");
      await symlink("loop", loop);
      for (const path of [
        "some/path",
        ".",
        "/",
        "/a\0",
        `${target}/../b`,
        "/proc/self/x",
        join(driver.folder, "x".repeat(300), "mount"),
        join(driver.folder, "csi.sock", "mount"),
        join(loop, "mount"),
      ]) {
        target = path;
        const { code, details } = await driver.failure(stats());
        expect(code, path).to.equal("NOT_FOUND");
        expect(details).to.include("no volume is mounted there");
      }
    });

    it("wants an id and a path", async () => {
      for (const request of [
        { volumeId: "", volumePath: target },
        { volumeId: "v", volumePath: "" },
      ]) {
        const call = invoke((done) => driver.client.nodeGetVolumeStats(request, done));
        expect((await driver.failure(call)).code).to.equal("INVALID_ARGUMENT");
      }
    });
  });
});
