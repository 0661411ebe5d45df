import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { expect } from "chai";
import fc from "fast-check";
import {
  createVolumeMounts,
  fileAccessFor,
  missingMountRight,
  mountsAt,
  systemMounts,
  unescapeOctal,
} from "../../src/csi/volume-mounts.ts";
import {
  type Driver,
  makeFolder,
  mountIdsAt,
  mountOptionsAt,
  publishRequest,
  removeFolder,
  requireMounts,
  startDriver,
} from "./csi-driver.ts";

const plainOptions = "size=2m,nr_inodes=1024,nosuid,nodev,noexec,mode=755";

describe("the mounts of volumes", function () {
  this.timeout(20_000);
  let folder: string;
  /** What mount(8) was told as `-o`. */
  let options: string[];

  before(requireMounts);
  beforeEach(async () => {
    folder = await makeFolder();
    options = [];
  });
  afterEach(() => removeFolder(folder));

  const target = async (name: string) => {
    const path = join(folder, name);
    await mkdir(path);
    return path;
  };

  const mountsThat = (refuse: (option: string) => boolean) =>
    createVolumeMounts({
      ...systemMounts,
      async run(program, args) {
        const option = args[3] ?? "";
        if (program === "mount") options.push(option);
        if (refuse(option)) throw Object.assign(new Error("refused"), { stderr: "bad option\n" });
        return systemMounts.run(program, args);
      },
    });

  it("keep the files out of the swap where the kernel can", async () => {
    const path = await target("a");
    await mountsThat(() => false).mount(path, fileAccessFor(undefined), []);
    expect(options[0]).to.equal(`${plainOptions},noswap`);
    const kernelCan = options.length === 1;
    expect((await mountOptionsAt(path)).includes("noswap")).to.equal(kernelCan);
  });

  it("do without where the kernel refuses it, and remember", async () => {
    const mounts = mountsThat((option) => option.includes("noswap"));
    for (const name of ["a", "b"]) {
      const path = await target(name);
      await mounts.mount(path, fileAccessFor(undefined), []);
      expect(await mountIdsAt(path)).to.have.lengthOf(1);
    }
    expect(options).to.deep.equal([`${plainOptions},noswap`, plainOptions, plainOptions]);
  });

  it("do without for all that were mounted at once", async () => {
    const mounts = mountsThat((option) => option.includes("noswap"));
    const paths = await Promise.all(["a", "b", "c"].map(target));
    await Promise.all(paths.map((path) => mounts.mount(path, fileAccessFor(undefined), [])));
    for (const path of paths) expect(await mountIdsAt(path)).to.have.lengthOf(1);
  });

  it("try it again after a failure of another kind", async () => {
    let isFailing = true;
    const mounts = mountsThat(() => isFailing);
    const path = await target("a");
    const error = await mounts.mount(path, fileAccessFor(undefined), []).catch((reason) => reason);
    expect(error.message).to.match(/^can't mount a tmpfs at .*: bad option$/);
    isFailing = false;
    options = [];
    await mounts.mount(path, fileAccessFor(undefined), []);
    expect(options[0]).to.include("noswap");
  });

  it("pass SELinux contexts on, and between quotes", async () => {
    const driver: Driver = await startDriver({
      mounts: {
        ...systemMounts,
        async run(program, args) {
          if (program === "mount") options.push(args[3] ?? "");
          return systemMounts.run(program, args);
        },
      },
    });
    try {
      const context = "system_u:object_r:container_file_t:s0:c1,c2";
      for (const [name, flag] of [
        ["a", `context="${context}"`],
        ["b", `context=${context}`],
      ] as const) {
        const path = join(driver.folder, name);
        await driver.publish(publishRequest(path, { mount: { mountFlags: [flag] } }));
        expect(options.splice(0)[0]).to.include(`,context="${context}"`);
      }
      for (const flag of [`context="${context}`, "context=a b", 'context="a",suid', "xcontext=a"]) {
        const request = publishRequest(join(driver.folder, "c"), { mount: { mountFlags: [flag] } });
        const error = await driver.failure(driver.publish(request));
        expect(error.code).to.equal("UNAVAILABLE");
      }
      expect(options).to.deep.equal([]);
    } finally {
      await driver.end();
    }
  });

  const mountsAfterwards = (interfere: (path: string) => Promise<unknown>) =>
    createVolumeMounts({
      ...systemMounts,
      async run(program, args) {
        await systemMounts.run(program, args);
        if (program === "mount") await interfere(args.at(-1) ?? "");
      },
    });

  it("come one only, though the mount(8) of a killed driver runs at the same time", async () => {
    const path = await target("a");
    const other = createVolumeMounts(systemMounts);
    await mountsAfterwards((at) =>
      systemMounts.run("mount", ["-t", "tmpfs", "connectors-csi", at]),
    ).mount(path, fileAccessFor(undefined), []);
    expect(await mountIdsAt(path)).to.have.lengthOf(1);
    expect(await other.keepOne(path)).to.equal(true);
  });

  it("fail where somebody else unmounts at the same time", async () => {
    const path = await target("a");
    const error = await mountsAfterwards((at) => systemMounts.run("umount", [at]))
      .mount(path, fileAccessFor(undefined), [])
      .catch((reason) => reason);
    expect(error).to.have.property("code", status.UNAVAILABLE);
  });
});

/** As the kernel's mangle_path does it. */
const escapeOctal = (text: string): string =>
  text.replace(/[ \t\n\\#]/g, (sign) => `\\${sign.charCodeAt(0).toString(8).padStart(3, "0")}`);

const lineFor = (path: string, fsType = "tmpfs", source = "connectors-csi"): string =>
  `65 44 0:39 / ${escapeOctal(path)} rw,nosuid shared:7 - ${fsType} ${escapeOctal(source)} rw,size=2048k`;

describe("mountsAt(): the kernel's mount info", () => {
  it("unescapes what the kernel escapes", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..." \t\n\\#/a0ü1234567") }), (text) => {
        expect(unescapeOctal(escapeOctal(text))).to.equal(text);
      }),
    );
  });

  it("finds the mounts at exactly one path, the last one last", () => {
    const path = "/var/lib/kubelet/pods/a b/mount";
    const lines = [
      lineFor("/"),
      lineFor(path, "ext4", "/dev/vd a"),
      lineFor(`${path}2`),
      lineFor(`${path}/below`),
      lineFor(path),
      "",
    ];
    expect(mountsAt(lines.join("\n"), path)).to.deep.equal([
      { mountPoint: path, fsType: "ext4", source: "/dev/vd a" },
      { mountPoint: path, fsType: "tmpfs", source: "connectors-csi" },
    ]);
  });

  it("reads a line without, and one with several, optional fields", () => {
    const text = [
      "1 2 0:3 / /a rw - tmpfs connectors-csi rw",
      "1 2 0:3 / /a rw shared:1 master:2 unbindable - proc proc rw",
    ].join("\n");
    expect(mountsAt(text, "/a").map(({ fsType }) => fsType)).to.deep.equal(["tmpfs", "proc"]);
  });

  it("passes over what is no line of a mount", () => {
    for (const text of ["", "\n", "a", "1 2 3 4", "1 2 3 4 /a"]) {
      expect(mountsAt(text, "/b")).to.deep.equal([]);
    }
  });

  it("finds one among ten thousand", () => {
    const lines = Array.from({ length: 10_000 }, (_, index) => lineFor(`/pods/${index}/mount`));
    expect(mountsAt(lines.join("\n"), "/pods/9999/mount")).to.have.lengthOf(1);
  });
});

describe("missingMountRight(): the right to mount", () => {
  const status = (user: number, capabilities: string): string =>
    `Name:\tnode\nUid:\t${user}\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapPrm:\t0\nCapEff:\t${capabilities}\n`;

  it("is root's, with CAP_SYS_ADMIN", () => {
    expect(missingMountRight(status(0, "0000000000200000"))).to.equal(undefined);
    expect(missingMountRight(status(0, "000001ffffffffff"))).to.equal(undefined);
    expect(missingMountRight(readFileSync("/proc/self/status", "utf8"))).to.equal(undefined);
  });

  it("is nobody else's, and says whose", () => {
    expect(missingMountRight(status(65534, "000001ffffffffff"))).to.equal(
      "found user 65534, wanted root",
    );
    for (const capabilities of ["0000000000000000", "000001ffffdfffff", "00000000a80425fb"]) {
      expect(missingMountRight(status(0, capabilities))).to.match(
        /^found root without CAP_SYS_ADMIN/,
      );
    }
  });
});
