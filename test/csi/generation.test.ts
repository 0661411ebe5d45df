import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { findGeneration, readCurrent, writeGeneration } from "../../src/csi/generation.ts";
import { fileAccessFor } from "../../src/csi/volume-mounts.ts";
import { attempt, errorCode } from "../../src/error-code.ts";
import { makeFolder, removeFolder, requireMounts, requireOtherUsers } from "./csi-driver.ts";

const everybody = fileAccessFor(undefined);
const files = (content: Record<string, string>): ReadonlyMap<string, string> =>
  new Map(Object.entries(content));

describe("the generation of a volume's files", function () {
  this.timeout(20_000);
  let root: string;
  beforeEach(async () => {
    root = await makeFolder();
  });
  afterEach(() => removeFolder(root));

  const visible = async () =>
    (await readdir(root)).filter((name) => !name.startsWith("..")).toSorted();
  const read = (path: string) => readFile(join(root, path), "utf8");

  it("writes files, nested ones too, and shows them through one link", async () => {
    const content = { ".env": "a", "certs.d/host:5000/ca.crt": "b", "..hidden": "c" };
    expect(writeGeneration(root, files(content), everybody)).to.equal(true);
    expect(await visible()).to.deep.equal([".env", "certs.d"]);
    expect(await readlink(join(root, ".env"))).to.equal("..data/.env");
    expect(await read(".env")).to.equal("a");
    expect(await read("certs.d/host:5000/ca.crt")).to.equal("b");
    expect(readCurrent(root, "..hidden")).to.equal("c");
  });

  it("knows that there is none yet", async () => {
    expect(findGeneration(root)).to.equal(undefined);
    expect(readCurrent(root, "a")).to.equal(undefined);
  });

  it("replaces all files at once and removes links to those that are gone", async () => {
    writeGeneration(root, files({ a: "1", "b/c": "1", d: "1" }), everybody);
    expect(writeGeneration(root, files({ a: "2", e: "2" }), everybody)).to.equal(true);
    expect(await visible()).to.deep.equal(["a", "e"]);
    expect(await read("a")).to.equal("2");
  });

  it("writes nothing where nothing has changed", async () => {
    const same = files({ a: "1", "b/c": "2" });
    writeGeneration(root, same, everybody);
    const [generation, { mtimeNs, ctimeNs }] = [
      findGeneration(root),
      await stat(root, { bigint: true }),
    ];
    expect(writeGeneration(root, same, everybody)).to.equal(false);
    expect(findGeneration(root)).to.equal(generation);
    const after = await stat(root, { bigint: true });
    expect([after.mtimeNs, after.ctimeNs]).to.deep.equal([mtimeNs, ctimeNs]);
  });

  it("sees one file more, one less and one that was changed", async () => {
    const changes: Record<string, string>[] = [{ a: "1", b: "1" }, { b: "1" }, { b: "2" }, {}];
    for (const content of changes) {
      expect(writeGeneration(root, files(content), everybody)).to.equal(true);
      expect(await visible()).to.deep.equal(Object.keys(content));
    }
  });

  it("keeps one generation beside the current one, for readers on their way", async () => {
    for (const content of ["1", "2", "3", "4"]) {
      writeGeneration(root, files({ a: content }), everybody);
    }
    const generations = (await readdir(root)).filter((name) => /^\.\.(?!data$)/.test(name));
    expect(generations).to.have.lengthOf(2);
    const texts = generations.map((name) => readFile(join(root, name, "a"), "utf8"));
    expect(await Promise.all(texts)).to.have.members(["3", "4"]);
  });

  it("repairs links, and removes what a writer left that was killed", async () => {
    writeGeneration(root, files({ a: "1" }), everybody);
    execFileSync("rm", [join(root, "a")]);
    await mkdir(join(root, "a", "b"), { recursive: true });
    await writeFile(join(root, "stray"), "");
    await mkdir(join(root, "..killed"));
    await symlink("..killed", join(root, "..killed..data"));
    writeGeneration(root, files({ a: "1" }), everybody);
    expect(await visible()).to.deep.equal(["a"]);
    expect(await read("a")).to.equal("1");
    writeGeneration(root, files({ a: "2" }), everybody);
    expect((await readdir(root)).filter((name) => name.includes("killed"))).to.deep.equal([]);
  });

  it("gives files and folders to the group, whatever the umask", async function () {
    await requireOtherUsers(this);
    const umask = process.umask(0o077);
    try {
      writeGeneration(root, files({ a: "1", "b/c": "1" }), fileAccessFor(2000));
    } finally {
      process.umask(umask);
    }
    const described = async (path: string) => {
      const { mode, uid, gid } = await stat(join(root, path));
      return [(mode & 0o7777).toString(8), uid, gid];
    };
    expect(await described("..data/")).to.deep.equal(["750", 0, 2000]);
    expect(await described("b")).to.deep.equal(["750", 0, 2000]);
    expect(await described("b/c")).to.deep.equal(["440", 0, 2000]);
  });

  it("refuses paths that lead out, and leaves what is there", async () => {
    writeGeneration(root, files({ a: "1" }), everybody);
    for (const path of ["../x", "a/../../x", "/x", "x//y", "./x", ""]) {
      const write = (): boolean => writeGeneration(root, files({ b: "2", [path]: "2" }), everybody);
      expect(write, path).to.throw(TypeError);
      expect(await read("a")).to.equal("1");
    }
    expect(await readdir(join(root, ".."))).not.to.include("x");
  });

  it("shows exactly the last files after any changes", async () => {
    const name = fc.stringMatching(/^[a-c](\/[d-f])?$/);
    const content = fc.dictionary(name, fc.string(), { maxKeys: 6 });
    await fc.assert(
      fc.asyncProperty(fc.array(content, { minLength: 1, maxLength: 5 }), async (changes) => {
        for (const change of changes) {
          const plain = Object.entries(change).filter(
            ([path]) => !Object.keys(change).some((other) => other.startsWith(`${path}/`)),
          );
          writeGeneration(root, new Map(plain), everybody);
          const tops = new Set(plain.map(([path]) => path[0]));
          expect(await visible()).to.deep.equal([...tops].toSorted());
          for (const [path, text] of plain) expect(await read(path)).to.equal(text);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("keeps the files when new ones don't fit, and goes on when they do", async () => {
    await requireMounts();
    const volume = join(root, "volume");
    await mkdir(volume);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k,nr_inodes=32", "tmpfs", volume]);
    const write = (content: Record<string, string>) =>
      attempt(() => writeGeneration(volume, files(content), everybody), errorCode);
    expect(write({ a: "1" })).to.equal(true);
    expect(write({ a: "x".repeat(100_000) })).to.equal("ENOSPC");
    const many = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`f${index}`, ""]));
    expect(write(many)).to.equal("ENOSPC");
    expect(await readFile(join(volume, "a"), "utf8")).to.equal("1");
    expect(write({ a: "x".repeat(40_000) })).to.equal(true);
    expect(write({ a: "2" })).to.equal(true);
    expect(await readFile(join(volume, "a"), "utf8")).to.equal("2");
  });
});
