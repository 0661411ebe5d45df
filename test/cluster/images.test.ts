import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { writeProgramImage } from "./images.ts";

describe("the image of the program", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let folder: string;

  before(() => {
    folder = resources.add(makeTempFolder("image")).path;
  });
  after(resources.stop);

  const write = (file: string): string => {
    const target = join(folder, file);
    writeProgramImage(target, "localhost/oci-connector:test");
    return target;
  };

  it("has the same bytes each time", () => {
    const [first, second] = ["first.tar", "second.tar"].map((file) =>
      createHash("sha256")
        .update(readFileSync(write(file)))
        .digest("hex"),
    );
    expect(first).to.equal(second);
  });

  it("runs Node without anything of the machine's", () => {
    const archive = write("image.tar");
    const root = join(folder, "root");
    const layers = execFileSync("tar", ["-xOf", archive, "manifest.json"], { encoding: "utf8" });
    const [{ Layers }] = JSON.parse(layers) as [{ Layers: string[] }];
    execFileSync("mkdir", ["-p", root]);
    for (const layer of Layers) {
      execFileSync("sh", ["-c", `tar -xOf "$1" "$2" | tar -x -C "$3"`, "-", archive, layer, root]);
    }
    const script =
      "await import('/app/node_modules/undici/index.js'); console.log(process.version)";
    const node = ["/bin/node", "--input-type=module", "-e", script];
    expect(execFileSync("chroot", [root, ...node], { encoding: "utf8" })).to.match(/^v24\./);
    expect(
      execFileSync("chroot", [root, "/bin/mount", "--version"], { encoding: "utf8" }),
    ).to.match(/util-linux/);
  });
});
