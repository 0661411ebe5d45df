import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";

const root = join(import.meta.dirname, "../..");
const read = (file: string): Promise<string> => readFile(join(root, file), "utf8");

/** Where the reasons of conditions stand in the code, as words in quotes. */
const sources = [
  "conditions",
  "connector-secrets",
  "connector-service",
  "ensure-prerequisites",
  "identity-login",
  "reconcile-connector",
].map((name) => `src/controller/${name}.ts`);

/** Words in quotes there that are no reasons. */
const others = /^(True|False|Unknown|Ready|[A-Z][A-Za-z]*Ready|Service|ExternalName|TCP)$/;

describe("docs/connector.md", () => {
  it("has every reason of a condition that the code has, and no others", async () => {
    const texts = await Promise.all([...sources, "src/upstream/probe.ts"].map(read));
    const code = texts.join("\n").replace(/^import .*$/gm, "");
    const words = [...code.matchAll(/"([A-Z][A-Za-z]+)"/g)].map(([, word = ""]) => word);
    const [, faults = ""] =
      /type UpstreamFault =(.*?);/s.exec(await read("src/upstream/upstream-error.ts")) ?? [];
    const [, loginFaults = ""] =
      /type LoginFault =(.*?);/s.exec(await read("src/credentials/login.ts")) ?? [];
    const inCode = new Set([
      "Ready",
      ...[...loginFaults.matchAll(/"(\w+)"/g)].map(([, fault = ""]) => fault),
      ...words.filter((word) => !others.test(word)),
      ...[...faults.matchAll(/"(\w+)"/g)].map(([, fault = ""]) => fault),
    ]);
    const text = await read("docs/connector.md");
    const rows = [...text.matchAll(/^\| `(\w+)` \| (?:True|False|Unknown) \|/gm)];
    expect(rows.map(([, reason = ""]) => reason).sort()).to.deep.equal([...inCode].sort());
  });

  it("has every condition and every parameter", async () => {
    const text = await read("docs/connector.md");
    const [, types = ""] =
      /const partTypes = \[(.*?)\]/s.exec(await read("src/controller/conditions.ts")) ?? [];
    for (const [, type] of types.matchAll(/"(\w+)"/g)) expect(text).to.contain(`| \`${type}\` | `);
    const parser = await read("src/connector/connector.ts");
    const params = [...parser.matchAll(/params, "(\w+)"/g)].map(([, name]) => name);
    expect(params).to.have.length.above(3);
    for (const name of params) expect(text).to.contain(`| \`${name}\` | `);
  });
});
