import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { runSettings } from "../../../tools/image/containerfile.ts";
import { writeProgramImage } from "../../../tools/image/write.ts";
import { cleanup } from "../../support/cleanup.ts";
import { systemPath } from "../../support/program.ts";
import { makeTempFolder } from "../../support/temp-folder.ts";

describe("the program's image (npm run image)", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let folder: string;
  let root: string;

  before(() => {
    folder = resources.add(makeTempFolder("image")).path;
    root = join(folder, "root");
    mkdirSync(root);
    const archive = write("image.tar");
    const manifest = execFileSync("tar", ["-xOf", archive, "manifest.json"], { encoding: "utf8" });
    const [{ Layers }] = JSON.parse(manifest) as [{ Layers: string[] }];
    for (const layer of Layers) {
      execFileSync("sh", ["-c", `tar -xOf "$1" "$2" | tar -x -C "$3"`, "-", archive, layer, root]);
    }
  });
  after(resources.stop);

  const write = (file: string): string => {
    const target = join(folder, file);
    writeProgramImage(target, "localhost/oci-connector:test");
    return target;
  };
  const run = (argv: readonly string[]): string =>
    execFileSync("chroot", [root, ...argv], {
      encoding: "utf8",
      stdio: "pipe",
      env: { PATH: systemPath },
    });
  const { entrypoint } = runSettings(join(import.meta.dirname, "../../.."));

  it("has the same bytes each time", () => {
    const [first, second] = ["image.tar", "second.tar"].map((file) =>
      createHash("sha256")
        .update(readFileSync(write(file)))
        .digest("hex"),
    );
    expect(first).to.equal(second);
  });

  it("runs as it says", () => {
    expect(run([...entrypoint, "help"])).to.match(/^usage: oci-connector /);
    expect(run(["/bin/mount", "--version"])).to.match(/util-linux/);
    expect(run(["/bin/umount", "--version"])).to.match(/util-linux/);
  });

  it("says nothing of its own when a role reads the roots", () => {
    const script = "require('node:tls').getCACertificates('system')";
    const argv = [root, "/bin/node", "-e", script];
    const options = { encoding: "utf8", env: { PATH: systemPath } } as const;
    const { status, stdout, stderr } = spawnSync("chroot", argv, options);
    expect({ status, output: stdout + stderr }).to.deep.equal({ status: 0, output: "" });
  });

  it("opens no debugger on SIGUSR1", () => {
    const flags = entrypoint.filter((word) => word.startsWith("--"));
    const script = `process.kill(process.pid, "SIGUSR1");
      setTimeout(() => console.log(String(require("node:inspector").url())), 300);`;
    const [node = ""] = entrypoint;
    const signalled = spawnSync("chroot", [root, node, ...flags, "-e", script], {
      encoding: "utf8",
    });
    expect(signalled.stderr).to.not.include("Debugger listening");
    expect(signalled.stdout).to.equal("undefined\n");
  });

  it("has every package that the program loads", () => {
    const script = `
      for (const file of fs.globSync("/app/dist/**/*.js", {exclude: (name) => name === "main.js"})) await import(file);
      await import("/app/dist/kube/api-access.js").then(({loadKubeconfigAccess}) => loadKubeconfigAccess({})).catch(({message}) => console.log(message));`;
    const output = run(["/bin/node", "--input-type=module", "-e", `import fs from "fs";${script}`]);
    expect(output).to.match(/^reading a kubeconfig requires the library .*npm ci.*\n$/);
  });

  it("has no other programs, no types and no tests", () => {
    const find = (...args: readonly string[]): string =>
      execFileSync("find", [".", ...args], { cwd: root, encoding: "utf8" });
    const outside = ["./lib*", "./app/*"].flatMap((path) => ["!", "-path", path]);
    const programs = find("-type", "f", "-perm", "/111", ...outside)
      .trim()
      .split("\n");
    expect(programs.sort()).to.deep.equal(["./bin/mount", "./bin/node", "./bin/umount"]);
    expect(find("-name", "*.ts", "-o", "-name", "test", "-o", "-perm", "/6022")).to.equal("");
  });
});
