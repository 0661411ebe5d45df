import { execFileSync } from "node:child_process";
import { mkdir, readdir, rm, rmdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { Unavailable } from "../../src/connector/platform.ts";
import { systemMounts } from "../../src/csi/volume-mounts.ts";
import {
  type Driver,
  foundConnector,
  mountIdsAt,
  publishRequest,
  requireMounts,
  startDriver,
  tokenExpiry,
  tokenMark,
} from "./csi-driver.ts";
import { type Kubelet, kubeletOf } from "./kubelet.ts";

type Request = Parameters<typeof publishRequest>[1];

/** What makes a publish fail. */
interface Failure {
  /** The code that the log and the metrics have. */
  readonly reason: string;
  /** Makes publishes fail, and returns what is different in the request. */
  readonly begin: () => Promise<Request> | Request;
  /** What somebody has to clear away before the volume can be unpublished, since it is not the driver's. */
  readonly clear?: () => Promise<void>;
  /** Whether it can happen at a mounted target: it is about the mounting itself unless true. */
  readonly alsoMounted: boolean;
}

describe("a volume whose publish fails, and whose Pod is deleted then", function () {
  this.timeout(20_000);
  let driver: Driver;
  let kubelet: Kubelet;
  let pods: string;
  let canMount: boolean;

  before(requireMounts);
  beforeEach(async () => {
    canMount = true;
    driver = await startDriver({
      mounts: {
        ...systemMounts,
        run: (program, args) =>
          canMount || program === "umount"
            ? systemMounts.run(program, args)
            : systemMounts.run("mount", ["-t", "tmpfs", "-o", "bogus", "x", pods]),
      },
    });
    pods = join(driver.folder, "pods");
    await mkdir(pods);
    kubelet = kubeletOf(driver, pods);
  });
  afterEach(() => driver.end());

  const target = (): string => kubelet.targetPath;
  const failures: Readonly<Record<string, Failure>> = {
    "the connector is gone": {
      reason: "NOT_FOUND",
      begin() {
        driver.world.findConnector = async () => ({ state: "missing", reason: "make it" });
      },
      alsoMounted: true,
    },
    "the right is missing": {
      reason: "PERMISSION_DENIED",
      begin() {
        driver.world.mayUse = async () => ({ ok: false, reason: "create the Role" });
      },
      alsoMounted: true,
    },
    "readOnly is missing": {
      reason: "INVALID_ARGUMENT",
      begin: () => ({ readonly: false }),
      alsoMounted: true,
    },
    "an attribute is misspelt": {
      reason: "INVALID_ARGUMENT",
      begin: () => ({ attributes: { connectors: "harbor", colour: "blue" } }),
      alsoMounted: true,
    },
    "there is no such configuration": {
      reason: "INVALID_ARGUMENT",
      begin: () => ({ attributes: { connectors: "harbor", "configuration.names": "npmrc" } }),
      alsoMounted: true,
    },
    "fsType is wrong": {
      reason: "INVALID_ARGUMENT",
      begin: () => ({ mount: { fsType: "ext4" } }),
      alsoMounted: true,
    },
    "the CSIDriver asks for no token": {
      reason: "UNAVAILABLE",
      begin: () => ({ secrets: {} }),
      alsoMounted: true,
    },
    "the token has expired": {
      reason: "UNAVAILABLE",
      begin() {
        driver.world.now = () => tokenExpiry.getTime();
      },
      alsoMounted: true,
    },
    "no header can carry the token": {
      reason: "INTERNAL",
      begin: () => ({ token: `${tokenMark}\n` }),
      alsoMounted: true,
    },
    "the API server is away": {
      reason: "UNAVAILABLE",
      begin() {
        driver.world.findConnector = async () => {
          throw new Unavailable("the API server is away");
        };
      },
      alsoMounted: true,
    },
    "something nobody expected happens": {
      reason: "INTERNAL",
      begin() {
        driver.world.caCertificate = () => {
          throw new TypeError("a bug");
        };
      },
      alsoMounted: true,
    },
    "the files don't fit": {
      reason: "RESOURCE_EXHAUSTED",
      begin() {
        driver.world.caCertificate = () => "x".repeat(9_000_000);
      },
      alsoMounted: true,
    },
    "mount(8) fails": {
      reason: "INTERNAL",
      begin() {
        canMount = false;
      },
      alsoMounted: false,
    },
    "a file is in the way": {
      reason: "FAILED_PRECONDITION",
      async begin() {
        await mkdir(join(pods, "connectors"), { recursive: true });
        await rm(target(), { recursive: true, force: true });
        await writeFile(target(), "");
      },
      alsoMounted: false,
    },
    "a symbolic link is in the way": {
      reason: "FAILED_PRECONDITION",
      async begin() {
        await mkdir(join(pods, "connectors"), { recursive: true });
        await rm(target(), { recursive: true, force: true });
        await symlink(driver.folder, target());
      },
      alsoMounted: false,
    },
    "somebody else has mounted there": {
      reason: "FAILED_PRECONDITION",
      async begin() {
        await mkdir(target(), { recursive: true });
        execFileSync("mount", ["-t", "tmpfs", "another", target()]);
      },
      clear: async () => void execFileSync("umount", [target()]),
      alsoMounted: false,
    },
  };

  /** Ends the mount as a reboot does: folders stay. */
  const reboot = async (): Promise<void> => {
    execFileSync("umount", [target()]);
    await kubelet.restart();
  };
  /** What comes before the publish that fails. */
  const histories: Readonly<
    Record<string, { readonly keepsMount: boolean; readonly prepare: () => Promise<void> }>
  > = {
    "the first publish": { keepsMount: false, prepare: async () => {} },
    "a republish": { keepsMount: true, prepare: publishOnce },
    "the first publish of another kubelet process": {
      keepsMount: true,
      async prepare() {
        await publishOnce();
        await kubelet.restart();
      },
    },
    "the first publish after a reboot": {
      keepsMount: false,
      async prepare() {
        await publishOnce();
        await reboot();
      },
    },
    "the first publish after a reboot, of a volume that was never published": {
      keepsMount: false,
      async prepare() {
        driver.world.findConnector = async () => ({ state: "missing", reason: "make it" });
        await kubelet.setUp(publishRequest(target()));
        driver.world.findConnector = async (ref) => foundConnector(ref);
        await kubelet.restart();
      },
    },
  };
  async function publishOnce(): Promise<void> {
    expect(await kubelet.setUp(publishRequest(target()))).to.equal("OK");
  }

  for (const [when, { keepsMount, prepare }] of Object.entries(histories)) {
    for (const [what, failure] of Object.entries(failures)) {
      if (keepsMount && !failure.alsoMounted) continue;
      it(`leaves nothing where ${what} at ${when}`, async () => {
        await prepare();
        const request = publishRequest(target(), (await failure.begin()) ?? {});
        for (const _ of ["first", "again"]) {
          const code = await kubelet.setUp(request);
          // A running Pod goes on with its last files.
          if (keepsMount && code === "OK") continue;
          expect(code).to.be.oneOf(["UNAVAILABLE", "RESOURCE_EXHAUSTED"]);
          const line = driver.logged("NodePublishVolume failed").at(-1);
          expect(line?.reason).to.match(new RegExp(`^${failure.reason}: `));
        }
        await failure.clear?.();
        await kubelet.deletePod();
        expect(await mountIdsAt(target())).to.deep.equal([]);
        await rmdir(join(pods, "connectors")).catch(() => undefined); // the kubelet's, of an orphaned Pod
        expect(await readdir(pods)).to.deep.equal([]);
      });
    }
  }

  it("goes on with the next publish once what was wrong is mended", async () => {
    await publishOnce();
    await reboot();
    driver.world.findConnector = async () => ({ state: "missing", reason: "make it" });
    expect(await kubelet.setUp(publishRequest(target()))).to.equal("UNAVAILABLE");
    driver.world.findConnector = async (ref) => foundConnector(ref);
    await publishOnce();
    expect(await mountIdsAt(target())).to.have.lengthOf(1);
    await kubelet.deletePod();
    expect(await readdir(pods)).to.deep.equal([]);
  });
});
