import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { searchSecrets } from "./secrets-search.ts";
import { makeTempFolder } from "./temp-folder.ts";

describe("the search for secrets", function () {
  this.timeout(20_000);
  const password = 'p+ss/wörd "1"';
  const secrets = { password };

  it("finds a secret at any place of base64, and in the other forms", async () => {
    const encodings: ((text: string) => string)[] = [
      (text) => text,
      encodeURIComponent,
      JSON.stringify,
      (text) => encodeURIComponent(text).toLowerCase(),
      (text) => Buffer.from(text).toString("base64"),
      (text) => Buffer.from(text).toString("base64url"),
      (text) => Buffer.from(text).toString("hex"),
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.string(),
        fc.string(),
        fc.constantFrom(...encodings),
        async (a, b, encode) => {
          const found = await searchSecrets({
            secrets,
            outputs: { log: encode(a + password + b) },
          });
          expect(found.map(({ secret, where }) => [secret, where])).to.deep.include([
            "password",
            "log",
          ]);
          const other = encode(`${a}p+ss/wörd "2"${b}`);
          expect(await searchSecrets({ secrets, outputs: { log: other } })).to.deep.equal([]);
        },
      ),
    );
  });

  it("finds it in files and in processes that we have started", async () => {
    const folder = makeTempFolder("secrets");
    const file = join(folder.path, "a", "b");
    const sleeper = spawn("sleep", ["60"], { env: { LOGIN: `user:${password}` } });
    const other = spawn("sh", ["-c", "read line; :", password]); // waits itself: a child would outlive it
    try {
      await Promise.all([sleeper, other].map((child) => once(child, "spawn")));
      await mkdir(join(folder.path, "a"));
      await writeFile(file, Buffer.from(`user:${password}`).toString("base64"));
      const found = await searchSecrets({ secrets, folders: [folder.path], processes: true });
      expect(found.map(({ form, where }) => `${form} in ${where}`)).to.have.members([
        `base64 in ${file}`,
        `plain in /proc/${sleeper.pid}/environ (sleep)`,
        `plain in /proc/${other.pid}/cmdline (sh)`,
      ]);
    } finally {
      const ends = [sleeper, other].map((child) => once(child, "exit"));
      sleeper.kill();
      other.kill();
      await Promise.all(ends);
      await folder.stop();
    }
  });
});
