import { createPublicKey, randomBytes } from "node:crypto";
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join, resolve } from "node:path";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../src/certificate-authority.ts";
import { openStateFolder, type StateFolder } from "../../src/standalone/state-folder.ts";
import { cleanup } from "../support/cleanup.ts";
import { startProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { eventually } from "./eventually.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";

describe("the state folder of standalone mode", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let path: string;
  let log: RecordedLog;

  beforeEach(() => {
    path = join(resources.add(makeTempFolder("state")).path, "deep", "state");
    log = recordedLog();
  });
  afterEach(resources.stop);

  const open = async (): Promise<StateFolder> => {
    const state = await openStateFolder({
      folder: path,
      log: log.log,
      now: Date.now,
      pid: process.pid,
    });
    resources.defer(() => state.close().catch(() => {}));
    return state;
  };
  const failure = async (): Promise<string> => {
    try {
      await (await open()).close();
    } catch (error) {
      return String(error);
    }
    return "none";
  };
  const modeOf = async (file: string): Promise<string> =>
    ((await stat(file)).mode & 0o777).toString(8);
  const publicPem = (state: StateFolder): string =>
    createPublicKey(state.tokenKey).export({ type: "spki", format: "pem" }).toString();

  it("makes keys and an authority that work, once", async () => {
    const made = await open();
    expect(made.tokenKey.asymmetricKeyType).to.equal("ed25519");
    expect(made.sealKey).to.have.length(32);
    const leaf = await (await createLeafIssuer(made.authority))("127.0.0.1", new Date());
    expect(leaf.certificate).to.include("BEGIN CERTIFICATE");
    expect(log.count("created ")).to.equal(3);
    await made.close();

    const again = await open();
    expect(again.authority).to.deep.equal(made.authority);
    expect(again.sealKey.equals(made.sealKey)).to.equal(true);
    expect(publicPem(again)).to.equal(publicPem(made));
    expect(log.count("created ")).to.equal(3);
    expect(log.lines.join("")).not.to.include("PRIVATE KEY");
  });

  it("is its owner's alone, whatever the umask", async () => {
    for (const umask of [0o000, 0o277]) {
      const before = process.umask(umask);
      try {
        path = join(path, "sub");
        await open();
      } finally {
        process.umask(before);
      }
      expect(await modeOf(path)).to.equal("700");
      expect(await modeOf(join(path, "volumes"))).to.equal("700");
      const files = (await readdir(path)).filter((name) => name !== "volumes");
      expect(files.sort()).to.deep.equal(["lock", "proxy-ca.pem", "seal.key", "token.key"]);
      for (const name of files) expect(await modeOf(join(path, name)), name).to.equal("600");
    }
  });

  it("closes an empty folder to others, and refuses one with something in it", async () => {
    await mkdir(path, { recursive: true, mode: 0o755 });
    await (await open()).close();
    expect(await modeOf(path)).to.equal("700");
    await chmod(path, 0o750);
    expect(await failure())
      .to.include("mode 750")
      .and.include(`chmod 700 ${path}`);
    expect(await modeOf(path)).to.equal("750");
  });

  it("refuses a folder of somebody else", async function () {
    if (process.getuid?.() !== 0) this.skip();
    await mkdir(path, { recursive: true, mode: 0o700 });
    await chown(path, 12345, 12345);
    expect(await failure()).to.include("belongs to user 12345");
  });

  it("refuses a key that others may read", async () => {
    await (await open()).close();
    await chmod(join(path, "token.key"), 0o640);
    expect(await failure()).to.include(`chmod 600 ${join(path, "token.key")}`);
  });

  describe("with a damaged file", () => {
    const damages: readonly [
      name: string,
      claim: string,
      content: () => Promise<string> | Buffer,
    ][] = [
      ["token.key", "no PEM", async () => "secret-nonsense"],
      ["token.key", "an empty file", async () => ""],
      [
        "token.key",
        "a key of another kind",
        async () => (await createAuthority("x", new Date())).privateKey,
      ],
      [
        "proxy-ca.pem",
        "a certificate alone",
        async () => (await createAuthority("x", new Date())).certificate,
      ],
      [
        "proxy-ca.pem",
        "halves of two pairs",
        async () =>
          (await createAuthority("x", new Date())).certificate +
          (await createAuthority("y", new Date())).privateKey,
      ],
      ["seal.key", "31 bytes", () => randomBytes(31)],
    ];
    for (const [name, claim, content] of damages) {
      it(`names it and says what to do, and leaves it as it is: ${name} with ${claim}`, async () => {
        await (await open()).close();
        const damaged = await content();
        await writeFile(join(path, name), damaged);
        const message = await failure();
        expect(message)
          .to.include(`${join(path, name)} is damaged`)
          .and.include("remove it");
        expect(message).not.to.include("nonsense");
        expect(Buffer.from(damaged).equals(await readFile(join(path, name)))).to.equal(true);
        expect(await failure(), "the lock is free again").to.equal(message);
      });
    }

    it("says so too where it can't be read at all", async () => {
      await mkdir(path, { recursive: true, mode: 0o700 });
      await symlink("token.key", join(path, "token.key"));
      expect(await failure())
        .to.include("ELOOP")
        .and.include("token.key");
    });
  });

  it("clears away what a killed write has left", async () => {
    await (await open()).close();
    await writeFile(join(path, ".unfinished-token.key-1"), "half");
    await writeFile(join(path, "volumes", ".unfinished-a.json-1"), "half");
    await open();
    expect(await readdir(path)).not.to.include(".unfinished-token.key-1");
    expect(await readdir(join(path, "volumes"))).to.deep.equal([]);
  });

  it("belongs to one at a time, and says to whom", async () => {
    const first = await open();
    expect(await failure())
      .to.include(`another process (${process.pid})`)
      .and.include(path);
    await first.close();
    expect(await failure()).to.equal("none");
  });

  it("is left as it is, and free, where what is to be checked first rejects", async () => {
    const refuse = async (): Promise<void> => {
      const outcome = await openStateFolder({
        folder: path,
        log: log.log,
        now: Date.now,
        pid: process.pid,
        beforeCreation: () => Promise.reject(new Error("not today")),
      }).catch(String);
      expect(outcome).to.equal("Error: not today");
    };
    await refuse();
    expect(await stat(path).catch(({ code }) => code)).to.equal("ENOENT");
    await (await open()).close();
    await rm(join(path, "token.key"));
    const before = await readdir(path);
    await refuse();
    expect(await readdir(path)).to.deep.equal(before);
    expect(await failure()).to.equal("none");
  });

  it("makes no key where another one is damaged", async () => {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await writeFile(join(path, "seal.key"), "short", { mode: 0o600 });
    expect(await failure()).to.include("seal.key is damaged");
    expect(await readdir(path)).to.deep.equal(["seal.key"]);
  });

  it("goes to one of many that start at once", async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, open));
    const states = outcomes.flatMap((outcome) =>
      outcome.status === "fulfilled" ? [outcome.value] : [],
    );
    expect(states).to.have.length(1);
  });

  it("says what it needs where flock(1) is missing", async () => {
    const { PATH } = process.env;
    process.env.PATH = path;
    try {
      expect(await failure()).to.include("util-linux");
    } finally {
      process.env.PATH = PATH;
    }
  });

  it("is free at once when its process is killed", async () => {
    const script = `
      import { openStateFolder } from ${JSON.stringify(resolve("src/standalone/state-folder.ts"))};
      await openStateFolder({ folder: ${JSON.stringify(path)}, log: () => {}, now: Date.now, pid: process.pid });
      console.log("open");
      setInterval(() => {}, 1000);`;
    const holder = resources.add(
      await startProgram(process.execPath, ["--input-type=module-typescript", "-e", script]),
    );
    await holder.waitFor(/open/);
    expect(await failure()).to.include("is locked by another process");
    holder.signal("SIGKILL");
    await holder.ended;
    await eventually(async () => (await failure()) === "none");
  });
});
