import { readFileSync } from "node:fs";
import { expect } from "chai";
import { missingMountRight } from "../../src/csi/volume-mounts.ts";

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
