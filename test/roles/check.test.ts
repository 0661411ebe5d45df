/** `oci-connector check`: the doctor of a folder of connectors. */
import { mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { makeCertificate } from "../support/certificates.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import type { Outcome } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { runCommand } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

describe("oci-connector check", function () {
  this.timeout(30_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let folder: string;
  const outputs: string[] = [];

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
  });
  beforeEach(async () => {
    folder = join(resources.add(makeTempFolder("check")).path, "connectors");
    await mkdir(folder);
    outputs.length = 0;
    registry.requests.length = 0;
  });
  afterEach(() => {
    expect(outputs.join("\n")).not.to.match(/secret-of-alice|wrong-password/);
    expect(outputs.join("\n")).not.to.include("PRIVATE KEY");
  });
  after(resources.stop);

  const write = (file: string, text: string, mode = 0o600): Promise<void> =>
    writeFile(join(folder, file), text, { mode });
  const check = async (...args: readonly string[]): Promise<Outcome> => {
    const outcome = await runCommand(["check", folder, ...args]);
    outputs.push(outcome.stdout, outcome.stderr);
    return outcome;
  };
  /** The report's findings as `title/subject verdict: found → advice`. */
  const findings = async (...args: readonly string[]): Promise<readonly string[]> => {
    const { stdout, status } = await check("--output", "json", ...args);
    const report: { ok: boolean; sections: { title: string; findings: Finding[] }[] } =
      JSON.parse(stdout);
    expect(status).to.equal(report.ok ? 0 : 1);
    return report.sections.flatMap(({ title, findings: found }) =>
      found.map(
        (one) => `${title}/${one.subject} ${one.verdict}: ${one.found} → ${one.advice ?? ""}`,
      ),
    );
  };
  interface Finding {
    readonly subject: string;
    readonly verdict: string;
    readonly found: string;
    readonly advice?: string;
  }
  const documents = (name: string, more: object = {}): string =>
    connectorYaml({ ref: `team-a/${name}`, address: registry.url, login, ...more });

  it("finds nothing wrong with a folder that is right, and asks no registry unless told", async () => {
    const { ca } = registry;
    await write("hub.yaml", documents("hub", { ca }));
    const { status, stdout, stderr } = await check();
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: "" });
    expect(stdout).to.match(/^ {2}ok +hub\.yaml +Connectors: 1, Secrets: 2$/m);
    expect(stdout).to.match(/^Connector team-a\/hub$/m);
    expect(stdout).to.match(/^ {2}ok +Secret +Secret team-a\/hub$/m);
    expect(stdout).to.match(/^ {2}ok +CA Secret +Secret team-a\/hub-ca has 1 certificates$/m);
    expect(stdout).to.match(/\n3 ok\n$/);
    expect(registry.requests).to.deep.equal([]);
  });

  it("tells of every file, and of every problem in it", async () => {
    const spoilt = documents("one")
      .replace('"secretRef"', '"secretref"')
      .replace('"address"', '"adress"');
    await write("a.yaml", `${spoilt}\n---\nx: [\n`);
    await write("b.yml", `${documents("two")}\n---\n{apiVersion: v1, kind: ConfigMap}`, 0o644);
    await write("c.yaml", documents("two"));
    await write("d.yaml", Buffer.from([0xff, 0xfe, 0x41]).toString("latin1"));
    await writeFile(join(folder, "d.yaml"), Buffer.from([0xff, 0x41]));
    await write("notes.txt", "hello");
    await write(".hidden.yaml", "[");
    await symlink("nothing", join(folder, "e.yaml"));
    const found = (await findings()).map((line) => line.replace(`Folder ${folder}/`, ""));
    const has = (pattern: RegExp): void => {
      expect(
        found.some((line) => pattern.test(line)),
        `${pattern} in\n${found.join("\n")}`,
      ).to.equal(true);
    };
    has(/^a\.yaml failed: Connector team-a\/one in line 1: .*"adress".*did you mean address/);
    has(/^a\.yaml failed: Connector team-a\/one in line 1: .*"secretref".*did you mean secretRef/);
    has(/^a\.yaml failed: line \d+, column \d+: found /);
    has(/^b\.yml warning: every user of this machine can read its Secrets → chmod o-rwx b\.yml$/);
    has(/^b\.yml ok: Connectors: 1, Secrets: 1; ignored, .*: ConfigMap in line \d+ → $/);
    has(/^c\.yaml warning: Connector team-a\/two is in b\.yml already/);
    has(/^c\.yaml warning: Secret team-a\/two is in b\.yml already/);
    has(/^d\.yaml failed: it is not UTF-8 text/);
    has(/^notes\.txt not checked: it is not read/);
    has(/^e\.yaml not checked: it is not read/);
    expect(found.join("\n")).not.to.include("hidden");
  });

  it("tells of Secrets that a connector lacks, and of those that will not do", async () => {
    const { certificate, privateKey } = await makeCertificate({ name: "client" });
    const other = await makeCertificate({ name: "other" });
    const [lacking = ""] = documents("lacking", { ca: registry.ca }).split("\n---\n");
    await write("a.yaml", lacking);
    await write("b.yaml", documents("empty", { login: { username: "a:b", password: "" } }));
    const clientCertificate = { certificate, privateKey: other.privateKey };
    await write("c.yaml", documents("mixed", { clientCertificate, login: undefined }));
    const all = (await findings()).join("\n");
    expect(privateKey).to.include("PRIVATE KEY");
    expect(all)
      .to.include(
        "Connector team-a/lacking/Secret failed: there is no Secret team-a/lacking: add it",
      )
      .and.include(
        "Connector team-a/lacking/CA Secret warning: there is no Secret team-a/lacking-ca",
      )
      .and.include(
        "Connector team-a/empty/Secret failed: Secret team-a/empty: password: found an empty value",
      )
      .and.include('username: found a ":"')
      .and.include("Connector team-a/mixed/Secret ok: none: the registry is used anonymously")
      .and.include("Connector team-a/mixed/client certificate failed: Secret team-a/mixed-client");
  });

  it("asks each registry with --login whether it takes the login", async () => {
    const { ca } = registry;
    const dead = await startFakeRegistry();
    await dead.stop();
    const wrong = { username: "alice", password: "wrong-password" };
    await write("a.yaml", documents("right", { ca }));
    await write("b.yaml", documents("untrusted"));
    await write("c.yaml", documents("dead", { address: dead.url }));
    await write("d.yaml", documents("wrong", { ca, login: wrong }));
    await write("e.yaml", documents("wrong-too", { ca, login: wrong }));
    const [lacking = ""] = documents("lacking", { ca }).split("\n---\n");
    await write("f.yaml", lacking);
    const found = (await findings("--login")).filter((line) => /\/(registry|login) /.test(line));
    const of = (name: string): string =>
      found.filter((line) => line.startsWith(`Connector team-a/${name}/`)).join("\n");
    expect(of("right"))
      .to.include(`registry ok: ${registry.url} answers`)
      .and.include("login ok: ")
      .and.include("lets the connector's account in");
    expect(of("untrusted"))
      .to.include("registry failed: CertificateInvalid: ")
      .and.include("login not checked: the registry must be reachable first");
    expect(of("dead")).to.include("registry failed: ConnectionFailed: ");
    expect(of("wrong")).to.include("login failed: AuthenticationFailed: ");
    expect(of("wrong-too"))
      .to.include("registry ok: ")
      .and.include(
        "login not checked: the registry has refused the same login to Connector team-a/wrong",
      );
    expect(of("lacking")).to.include("registry not checked: a Secret of this connector");
    const tries = registry.requests.filter(({ headers }) =>
      (headers.authorization ?? "").endsWith(
        Buffer.from("alice:wrong-password").toString("base64"),
      ),
    );
    expect(tries).to.have.lengthOf(1);
  });

  it("has the exit codes of the other commands, and says what is wanted", async () => {
    expect((await check("--login")).status).to.equal(0); // an empty folder, to which nothing can be asked
    const none = await runCommand(["check", join(folder, "none")]);
    expect({ status: none.status, stderr: none.stderr }).to.deep.equal({ status: 1, stderr: "" });
    expect(none.stdout).to.include("none doesn't exist: create it").and.include("1 FAILED");
    for (const [args, said] of [
      [[], "DIR: found [], wanted one folder"],
      [["a", "b"], 'DIR: found ["a","b"], wanted one folder'],
      [["a", "--login=yes"], '--login: found "yes", wanted no value'],
      [["a", "--output", "xml"], '--output: found "xml", wanted text or json'],
      [["a", "--logn"], "(did you mean --login?)"],
    ] as const) {
      const { status, stdout, stderr } = await runCommand(["check", ...args]);
      expect({ status, stdout }).to.deep.equal({ status: 64, stdout: "" });
      expect(stderr).to.include(said);
    }
  });

  it("agrees with the start of a process: a folder of which nothing can be used is refused", async () => {
    await write("a.yaml", documents("one").replace('"address"', '"adress"'));
    await write("b.yaml", "x: [\n");
    const state = join(folder, "..", "state");
    const start = [
      "standalone",
      "--connectors",
      folder,
      "--state",
      state,
      "--listen",
      "127.0.0.1:0",
    ];
    const { status, stderr } = await runCommand(start);
    outputs.push(stderr);
    expect(status).to.equal(1);
    expect(stderr)
      .to.include(`oci-connector: ${folder} has no Connector that can be used (a.yaml: Connector `)
      .and.include(`"oci-connector check ${folder}" says all that is wrong`)
      .and.not.include('"ready"');
    expect(await readdir(join(folder, ".."))).to.deep.equal(["connectors"]);
    expect((await findings()).join("\n")).to.include("connectors failed: none can be used");
  });
});
