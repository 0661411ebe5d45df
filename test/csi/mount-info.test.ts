import { expect } from "chai";
import fc from "fast-check";
import { mountsAt, unescapeOctal } from "../../src/csi/mount-info.ts";

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
