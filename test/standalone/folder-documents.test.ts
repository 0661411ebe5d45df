import { expect } from "chai";
import fc from "fast-check";
import { parse } from "yaml";
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
    [
      "a key twice",
      `${secretYaml("a")}stringData: {password: ${password}}`,
      "line 6, column 1: found a key for the second time, wanted it once",
    ],
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

  it("names unknown fields, and the known one that may be meant", () => {
    const { connectors, problems, invalid } = readFolderDocuments(
      connectorYaml("harbor")
        .replace("secretRef", "secretref")
        .replace("spec:", "Labels: {}\nspec:\n  params: [{name: rule, value: []}, {name: theirs}]"),
    );
    expect(connectors).to.deep.equal([]);
    expect(problems).to.deep.equal([invalid.get("default/harbor")]);
    expect(problems[0])
      .to.include(
        'spec.auth: found the field "secretref", wanted one of name, secretRef, serviceAccountRef, params',
      )
      .and.include("(did you mean secretRef?)")
      .and.include('the document: found the field "Labels", wanted one of apiVersion, kind, ')
      .and.include('spec.params.0.name: found "rule", wanted one of allowedRealmHosts, ')
      .and.include("(did you mean rules?)")
      .and.not.include("theirs");
  });

  it("takes what a cluster has added to a Connector and a Secret", () => {
    const added =
      "uid: u, resourceVersion: '1', generation: 1, annotations: {a: b}, managedFields: [{}]";
    const reference = "{apiVersion: v1, kind: Secret, name: harbor}";
    const text = pairYaml("harbor")
      .replaceAll("name: harbor}\n", `name: harbor, ${added}}\n`)
      .replace("secretRef: {name: harbor}", `secretRef: ${reference}`);
    expect(text).to.include(reference).and.include(added);
    const other = "\nstatus: {conditions: []}\n---\n";
    const { problems } = readFolderDocuments(text.replace("---\n", `${other}immutable: true\n`));
    expect(problems).to.deep.equal([]);
  });

  it("names what is misplaced in a Secret, and no name that may be a password", () => {
    const misplaced = secretYaml("a").replace(
      `stringData: {username: robot, password: ${password}}`,
      `stringdata:\nusername: robot\npassword: ${password}\n${password}:`,
    );
    const [problem = ""] = readFolderDocuments(misplaced).problems;
    expect(problem)
      .to.include("an unknown field in place 5, wanted one of apiVersion, kind, type, stringData")
      .and.include("(did you mean stringData?)")
      .and.include("found username (it belongs under stringData)")
      .and.include("found password (it belongs under stringData)")
      .and.include("an unknown field in place 8")
      .and.not.include(password);
  });

  it("reads the items of a List, as kubectl prints them, and says in which line each one is", () => {
    const indent = (text: string): string => `- ${text.trimEnd().replaceAll("\n", "\n  ")}\n`;
    const list = (...items: readonly string[]): string =>
      `apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ""}\nitems:\n${items.map(indent).join("")}`;
    const good = readFolderDocuments(list(connectorYaml("harbor"), secretYaml("harbor")));
    expect(good.problems).to.deep.equal([]);
    expect(good.connectors.map(({ uid }) => uid)).to.deep.equal(["default/harbor"]);
    expect(good.secrets.map(({ name }) => name)).to.deep.equal(["harbor"]);

    const mixed = readFolderDocuments(
      list(secretYaml("a"), connectorYaml("bad", "ftp://x"), "kind: ConfigMap\napiVersion: v1"),
    );
    expect(mixed.secrets).to.have.length(1);
    expect(mixed.problems[0]).to.include("Connector default/bad in line 10: spec.address");
    expect(mixed.ignored).to.deep.equal(["ConfigMap in line 17"]);
    expect(readFolderDocuments(list()).problems).to.deep.equal([]);
  });

  it("reads the API server's own lists, whose items say neither kind nor version", () => {
    const bare = (text: string): string => JSON.stringify(parse(text.replace(/^.*\n.*\n/, "")));
    const { problems, connectors, secrets } = readFolderDocuments(
      [
        ["connectors.alauda.io/v1alpha1", "Connector", bare(connectorYaml("harbor"))],
        ["v1", "Secret", bare(secretYaml("harbor"))],
      ]
        .map(
          ([version, kind, item]) =>
            `{apiVersion: ${version}, kind: ${kind}List, items: [${item}]}`,
        )
        .join("\n---\n"),
    );
    expect({ problems, count: connectors.length + secrets.length }).to.deep.equal({
      problems: [],
      count: 2,
    });
  });

  it("comes to an end with a List that contains itself", () => {
    const circle = "&list\napiVersion: v1\nkind: List\nitems: [*list, *list]\n";
    const { connectors, problems, ignored } = readFolderDocuments(circle);
    expect(connectors).to.deep.equal([]);
    expect(problems.length + ignored.length).to.be.within(1, 20);
  });

  for (const [claim, text, told] of [
    ["a tab", "a:\n\tb: 1\n", "line 2, column 1: found a tab in the indentation, wanted spaces"],
    ["a quote that nobody closes", 'a: "x\nb: 1\n', "wanted a closing quote"],
    ["a second colon", "a: b: c\n", "wanted quotes around the value"],
    ["a password that begins with a sign of YAML", "a: @x\n", "wanted quotes around it"],
    ["a line that lost its colon", "a: 1\nb 2\n", "line 2, column 1: found"],
    ["brackets that nobody closes", "a: {b: 1\nc: 2", "or the closing bracket"],
  ] as const) {
    it(`tells of ${claim} in plain words, without the parser's codes`, () => {
      const [problem = ""] = readFolderDocuments(text).problems;
      expect(problem)
        .to.include(told)
        .and.not.match(/[A-Z]_[A-Z]/);
    });
  }

  it("tells of every line that is wrong, though of few in a row", () => {
    const twice = readFolderDocuments("a: @x\nb: 1\nc: @y\n").problems.join();
    expect(twice).to.include("line 1, ").and.include("line 3, ");
    const many = readFolderDocuments("x: @x\n".repeat(50)).problems.join();
    expect(many.length).to.be.below(1_000);
    expect(many).to.match(/and 45 more lines with errors$/);
  });

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
