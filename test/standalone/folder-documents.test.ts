import { expect } from "chai";
import fc from "fast-check";
import { readFolderDocuments } from "../../src/standalone/folder-documents.ts";
import { connectorYaml, pairYaml, password, secretYaml } from "./manifests.ts";

describe("readManifest(): the manifest in a file's text", function () {
  this.timeout(30_000);
  const everything = (text: string): string => JSON.stringify(readFolderDocuments(text).problems);

  it("holds Connectors and Secrets, in the namespace default unless they name another", () => {
    const other = connectorYaml("ghcr").replace("{name: ghcr}", "{name: ghcr, namespace: team-b}");
    const manifest = readFolderDocuments(
      `# mine\n---\n${pairYaml("harbor")}---\n${other}...\n---\n`,
    );
    expect(manifest.problems).to.deep.equal([]);
    expect(manifest.connectors.map(({ uid }) => uid)).to.deep.equal([
      "default/harbor",
      "team-b/ghcr",
    ]);
    expect(manifest.secrets).to.have.length(1);
    expect(manifest.secrets[0]).to.include({ namespace: "default", name: "harbor" });
  });

  it("reads JSON, Windows line ends and a byte order mark", () => {
    const text = `\ufeff${secretYaml("harbor").replaceAll("\n", "\r\n")}---\r\n{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}}`;
    expect(readFolderDocuments(text).problems).to.deep.equal([]);
    expect(readFolderDocuments(text).secrets.map(({ name }) => name)).to.deep.equal([
      "harbor",
      "b",
    ]);
  });

  it("knows the Secrets whose certificates every connector trusts, labelled with or without quotes", () => {
    const labelled = (value: string): string =>
      secretYaml("ca").replace(
        "{name: ca}",
        `{name: ca, labels: {connectors.cpaas.io/ca-cert: ${value}}}`,
      );
    const trusted = (value: string) =>
      readFolderDocuments(labelled(value)).secrets[0]?.trustedByAll;
    expect(['"true"', "true", '"false"'].map(trusted)).to.deep.equal([true, true, false]);
  });

  it("passes over other kinds, and says which and where", () => {
    const text = `${secretYaml("a")}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n`;
    const manifest = readFolderDocuments(text);
    expect(manifest.ignored).to.deep.equal(["ConfigMap in line 7"]);
    expect(manifest.problems).to.deep.equal([]);
  });

  it("gives the valid documents beside the invalid ones", () => {
    const manifest = readFolderDocuments(
      `${connectorYaml("bad", "ftp://x")}---\n${pairYaml("good")}`,
    );
    expect(manifest.connectors.map(({ name }) => name)).to.deep.equal(["good"]);
    expect(manifest.problems).to.have.length(1);
    expect(manifest.problems[0])
      .to.include("Connector default/bad in line 1: spec.address")
      .and.include("ftp://x");
    expect(manifest.invalid.get("default/bad")).to.equal(manifest.problems[0]);
  });

  const wrong: readonly [claim: string, text: string, told: string][] = [
    [
      "a value that is a number",
      secretYaml("a").replace(password, "1234567"),
      "stringData.password: found a number",
    ],
    [
      "no base64",
      `${secretYaml("a")}data: {token: "${password}"}`,
      "data.<key 1>: found text that is not base64",
    ],
    ["a list of values", `${secretYaml("a")}data: [${password}]`, "data: found a list"],
    ["an empty value", `${secretYaml("a")}data:\n  password:\n`, "data.password: found nothing"],
    [
      "no name",
      secretYaml("a").replace("metadata: {name: a}", ""),
      "Secret without a name in line 1",
    ],
    [
      "another version",
      secretYaml("a").replace("v1", "v2"),
      "apiVersion: found other text, wanted v1",
    ],
    ["a key without a value's quotes", `${secretYaml("a")}x: "${password}\n`, "line 7, column"],
    ["a key twice", `${secretYaml("a")}stringData: {password: ${password}}`, "DUPLICATE_KEY"],
    ["an alias to nothing", `${secretYaml("a")}x: *${password}`, "aliases"],
    ["half a kind", `apiVersion: v1\nkind: ${password}`, "found none, or part of one"],
    ["a text alone", password, "the document in line 1: found none"],
    ["a tag that runs code elsewhere", `!!js/function "${password}"`, "found none"],
  ];
  for (const [claim, text, problem] of wrong) {
    it(`tells of ${claim}, and shows no value`, () => {
      expect(everything(text).replaceAll('\\"', '"')).to.include(problem).and.not.include(password);
    });
  }

  it("refuses alias bombs and bottomless nesting quickly", () => {
    const level = (name: string, from: string): string =>
      `${name}: &${name} [${`*${from},`.repeat(9)}]\n`;
    const names = [..."abcdefghij"];
    const bomb = `z: &z [1]\n${names.map((name, i) => level(name, names[i - 1] ?? "z")).join("")}`;
    expect(everything(bomb)).to.include("aliases that can't be followed");
    expect(everything("[".repeat(5_000))).to.include("line 1");
  });

  it("shows no value of a Secret, whatever happens to its file", () => {
    const text = pairYaml("harbor");
    fc.assert(
      fc.property(
        fc.nat(text.length),
        fc.nat(10),
        fc.constantFrom(
          "",
          "\n",
          "\t",
          "'",
          '"',
          "{",
          "]",
          "*",
          "&",
          "!!",
          ": ",
          "---\n",
          "|",
          "\0",
        ),
        (at, cut, put) => {
          const { problems, ignored } = readFolderDocuments(
            text.slice(0, at) + put + text.slice(at + cut),
          );
          const shown = JSON.stringify([problems, ignored]);
          expect(shown).not.to.include("horse");
        },
      ),
      { numRuns: 500 },
    );
  });
});
