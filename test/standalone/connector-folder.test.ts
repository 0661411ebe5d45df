import { execFileSync } from "node:child_process";
import {
  chmod,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import {
  type ConnectorFolder,
  type ConnectorFolderOptions,
  openConnectorFolder,
} from "../../src/standalone/connector-folder.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { eventually } from "./eventually.ts";
import { connectorYaml, pairYaml, password, secretYaml } from "./manifests.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";

describe("a folder of connectors", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let path: string;
  let log: RecordedLog;

  beforeEach(() => {
    path = resources.add(makeTempFolder("connectors")).path;
    log = recordedLog();
  });
  afterEach(async () => {
    await resources.stop();
    expect(log.lines.join("")).not.to.include(password);
    expect(log.lines.join("")).not.to.include(Buffer.from(password).toString("base64"));
  });

  const at = (name: string): string => join(path, name);
  const write = (name: string, text: string): Promise<void> =>
    writeFile(at(name), text, { mode: 0o600 });
  /** In one step: between the two of `write` the file is empty, which a slow machine may see. */
  const replace = async (name: string, text: string): Promise<void> => {
    await write(`.${name}.new`, text);
    await rename(at(`.${name}.new`), at(name));
  };
  const openIt = async (options: Partial<ConnectorFolderOptions> = {}): Promise<ConnectorFolder> =>
    resources.add(
      await openConnectorFolder({
        folder: path,
        log: log.log,
        debounceMs: 20,
        rescanMs: 3_600_000,
        ...options,
      }),
    );
  const names = (folder: ConnectorFolder): string =>
    [...folder.contents().connectors.keys()].join(" ");
  const address = (folder: ConnectorFolder, ref: string): string | undefined =>
    folder.contents().connectors.get(ref)?.address.origin;

  it("holds what its YAML files hold, and nothing of other files", async () => {
    await write("b.yml", pairYaml("ghcr"));
    await write("a.yaml", pairYaml("harbor"));
    for (const other of ["c.yaml.swp", ".d.yaml", "e.txt"]) await write(other, "{{{");
    await mkdir(at("f.yaml"));
    await symlink("nothing", at("g.yaml"));
    await symlink("nothing", at(".#a.yaml"));
    const folder = await openIt();
    expect(names(folder)).to.equal("default/harbor default/ghcr");
    expect([...folder.contents().secrets.keys()]).to.deep.equal(["default/harbor", "default/ghcr"]);
    expect(log.count('"error"') + log.count('"warning"')).to.equal(0);
  });

  it("says what to do where there is no folder", async () => {
    const error = await openIt({ folder: at("none") }).catch((e: unknown) => e);
    expect(String(error)).to.include(at("none")).and.include("create it");
    await write("file", "");
    expect(String(await openIt({ folder: at("file") }).catch((e: unknown) => e))).to.include(
      "is a file",
    );
  });

  describe("that is edited", () => {
    let folder: ConnectorFolder;
    let changes: string[];

    beforeEach(async () => {
      await write("a.yaml", pairYaml("harbor", "https://one.example.com"));
      await write("b.yaml", pairYaml("ghcr"));
      folder = await openIt();
      changes = [];
      folder.onChange((refs) => changes.push([...refs].join(" ")));
    });

    it("sees a file that is replaced by a rename", async () => {
      await write(".a.yaml.tmp", pairYaml("harbor", "https://two.example.com"));
      await rename(at(".a.yaml.tmp"), at("a.yaml"));
      await eventually(() => address(folder, "default/harbor") === "https://two.example.com");
      expect(changes).to.deep.equal(["default/harbor"]);
    });

    it("sees a file that is written in place", async () => {
      await write("a.yaml", pairYaml("harbor", "https://two.example.com"));
      await eventually(() => address(folder, "default/harbor") === "https://two.example.com");
      expect(changes).to.deep.equal(["default/harbor"]);
    });

    it("keeps what a file held while it is truncated, until it is written", async () => {
      await truncate(at("a.yaml"));
      await eventually(() => log.count('"error"', "a.yaml", "it is empty") === 1);
      expect(names(folder)).to.equal("default/harbor default/ghcr");
      const file = await open(at("a.yaml"), "r+");
      const text = pairYaml("harbor", "https://two.example.com");
      await file.write(text.slice(0, 60));
      await eventually(() => log.count('"error"', "a.yaml") === 2);
      expect(address(folder, "default/harbor")).to.equal("https://one.example.com");
      await file.write(text.slice(60));
      await file.close();
      await eventually(() => address(folder, "default/harbor") === "https://two.example.com");
      expect(changes).to.deep.equal(["default/harbor"]);
    });

    it("lets the objects of a deleted file go", async () => {
      await unlink(at("a.yaml"));
      await eventually(() => names(folder) === "default/ghcr");
      expect([...folder.contents().secrets.keys()]).to.deep.equal(["default/ghcr"]);
      expect(changes).to.deep.equal(["default/harbor"]);
    });

    it("sees a new file", async () => {
      await write("c.yaml", pairYaml("nexus"));
      await eventually(() => names(folder).endsWith("default/nexus"));
      expect(changes).to.deep.equal(["default/nexus"]);
    });

    it("tells nobody of connectors when only a Secret changes, and has the Secret", async () => {
      await write("b.yaml", pairYaml("ghcr").replace("robot", "robot2"));
      await folder.rescan();
      expect(JSON.stringify(folder.contents().secrets.get("default/ghcr"))).to.include("robot2");
      expect(changes).to.deep.equal([]);
    });

    it("keeps a whole file while anything in it is wrong, and says so once per change", async () => {
      await replace("a.yaml", `${pairYaml("harbor")}---\n${connectorYaml("bad", "nowhere")}`);
      await folder.rescan();
      await folder.rescan();
      expect(address(folder, "default/harbor")).to.equal("https://one.example.com");
      expect(names(folder)).not.to.include("bad");
      expect(folder.contents().invalid.get("default/bad")).to.include("nowhere");
      expect(log.count('"error"')).to.equal(1);
      expect(
        log.count('"error"', at("a.yaml"), "its last contents stay in use", "nowhere"),
      ).to.equal(1);

      await replace("a.yaml", `{${password}`);
      await folder.rescan();
      expect(log.count('"error"', "line 1, column")).to.equal(1);
      expect(address(folder, "default/harbor")).to.equal("https://one.example.com");

      await replace("a.yaml", pairYaml("harbor", "https://two.example.com"));
      await folder.rescan();
      expect(address(folder, "default/harbor")).to.equal("https://two.example.com");
      expect(folder.contents().invalid.size).to.equal(0);
      expect(log.count('"error"')).to.equal(2);
    });

    it("keeps a file that turns into something unreadable", async () => {
      /** In one step, since a file that is gone for a moment takes its objects with it. */
      const turn = async (make: (hidden: string) => Promise<unknown> | unknown): Promise<void> => {
        await make(at(".next"));
        await rename(at(".next"), at("a.yaml"));
        await folder.rescan();
        expect(names(folder)).to.equal("default/harbor default/ghcr");
      };
      await turn((hidden) => writeFile(hidden, Buffer.from([0x61, 0xff, 0xfe])));
      expect(log.count('"error"', "not UTF-8 text")).to.equal(1);
      await turn((hidden) => writeFile(hidden, "#".repeat(1024 * 1024 + 1)));
      expect(log.count('"error"', "more than 1 MiB")).to.equal(1);
      await turn((hidden) => execFileSync("mkfifo", [hidden]));
      expect(log.count('"error"', "not a regular file")).to.equal(1);
      await turn((hidden) => symlink("a.yaml", hidden));
      expect(log.count('"error"', "ELOOP")).to.equal(1);
    });

    it("lets a file's objects go where it holds comments alone", async () => {
      await write("a.yaml", "# nothing any more\n");
      await folder.rescan();
      expect(names(folder)).to.equal("default/ghcr");
    });

    it("keeps everything while the folder is away, and finds it again", async () => {
      await rename(path, `${path}.away`);
      resources.defer(() => rm(`${path}.away`, { recursive: true, force: true }));
      await folder.rescan();
      await folder.rescan();
      expect(names(folder)).to.equal("default/harbor default/ghcr");
      expect(log.count('"error"', "can't be read", path)).to.equal(1);
      await mkdir(path);
      await folder.rescan();
      expect(log.count('"info"', "can be read again")).to.equal(1);
      expect(names(folder)).to.equal("");
      await write("new.yaml", pairYaml("nexus"));
      await eventually(() => names(folder) === "default/nexus");
    });

    it("is silent once it is stopped", async () => {
      await folder.stop();
      const before = log.lines.length;
      await write("a.yaml", "{");
      await folder.rescan();
      expect(log.lines).to.have.length(before);
      expect(changes).to.deep.equal([]);
    });
  });

  it("follows links into a folder that is swapped, as Kubernetes mounts volumes", async () => {
    const generation = async (name: string, text: string): Promise<void> => {
      await mkdir(at(name));
      await writeFile(join(at(name), "a.yaml"), text, { mode: 0o600 });
      await symlink(name, at("..data_tmp"));
      await rename(at("..data_tmp"), at("..data"));
    };
    await generation("..1", pairYaml("harbor", "https://one.example.com"));
    await symlink("..data/a.yaml", at("a.yaml"));
    const folder = await openIt();
    expect(address(folder, "default/harbor")).to.equal("https://one.example.com");
    await generation("..2", pairYaml("harbor", "https://two.example.com"));
    await eventually(() => address(folder, "default/harbor") === "https://two.example.com");
  });

  it("sees by itself what no event tells: a file behind a link, a folder behind a link", async () => {
    const [one, two] = [at("1"), at("2")];
    await mkdir(one);
    await mkdir(two);
    await writeFile(at("elsewhere"), pairYaml("harbor", "https://one.example.com"));
    await symlink("../elsewhere", join(one, "a.yaml"));
    await symlink(one, at("current"));
    const folder = await openIt({ folder: at("current"), rescanMs: 20 });
    await writeFile(at("elsewhere"), pairYaml("harbor", "https://two.example.com"));
    await eventually(() => address(folder, "default/harbor") === "https://two.example.com");
    await writeFile(join(two, "b.yaml"), pairYaml("ghcr"));
    await symlink(two, at("next"));
    await rename(at("next"), at("current"));
    await eventually(() => names(folder) === "default/ghcr");
  });

  it("starts with the valid documents of a file that has invalid ones", async () => {
    await write("a.yaml", `${connectorYaml("bad", "nowhere")}---\n${pairYaml("harbor")}`);
    const folder = await openIt();
    expect(names(folder)).to.equal("default/harbor");
    expect(log.count('"error"', "its valid documents", "default/bad")).to.equal(1);
    await write("a.yaml", `${connectorYaml("bad", "nowhere")}---\n${pairYaml("ghcr")}`);
    await folder.rescan();
    expect(names(folder)).to.equal("default/ghcr");
  });

  it("takes an object that stands in two files from the first, and says so", async () => {
    await write("b.yaml", pairYaml("harbor", "https://b.example.com"));
    await write("a.yaml", connectorYaml("harbor", "https://a.example.com"));
    await write("c.yaml", secretYaml("harbor"));
    const folder = await openIt();
    expect(address(folder, "default/harbor")).to.equal("https://a.example.com");
    expect(log.count('"warning"', at("b.yaml"), "Connector default/harbor is in a.yaml")).to.equal(
      1,
    );
    expect(log.count('"warning"', at("c.yaml"), "Secret default/harbor is in b.yaml")).to.equal(1);
    expect(log.count('"warning"')).to.equal(2);
    await unlink(at("a.yaml"));
    await folder.rescan();
    expect(address(folder, "default/harbor")).to.equal("https://b.example.com");
  });

  it("warns once of a file with a Secret that everybody can read, also when that comes later", async () => {
    await write("a.yaml", pairYaml("harbor"));
    await write("b.yaml", connectorYaml("ghcr").replace(/ {2}auth.*\n/, ""));
    await chmod(at("b.yaml"), 0o644);
    const folder = await openIt();
    expect(log.count('"warning"')).to.equal(0);
    await chmod(at("a.yaml"), 0o644);
    await folder.rescan();
    await folder.rescan();
    expect(log.count('"warning"', `chmod o-rwx ${at("a.yaml")}`)).to.equal(1);
    expect(log.count('"warning"')).to.equal(1);
  });

  it("passes over other kinds with one line", async () => {
    await write("a.yaml", `${pairYaml("harbor")}---\napiVersion: v1\nkind: ConfigMap\n`);
    const folder = await openIt();
    await folder.rescan();
    expect(log.count("are ignored", "ConfigMap")).to.equal(1);
  });

  it("warns of connectors whose Secrets are missing or of no use", async () => {
    const withCa = connectorYaml("nexus").replace(
      "  auth",
      "  caCertSecretRef: {name: ca}\n  auth",
    );
    await write("a.yaml", `${connectorYaml("harbor")}---\n${withCa}`);
    await write("b.yaml", secretYaml("nexus").replace("kubernetes.io/basic-auth", "Opaque"));
    const folder = await openIt();
    expect(log.count('"warning"', "default/harbor", "there is no Secret")).to.equal(1);
    expect(log.count('"warning"', "default/nexus", "type: found")).to.equal(1);
    expect(log.count('"warning"', "default/nexus", "there is no Secret default/ca")).to.equal(1);
    await write("c.yaml", `${secretYaml("harbor")}---\n${secretYaml("ca")}`);
    await folder.rescan();
    expect(log.count('"warning"', "Secret default/ca holds no PEM certificate")).to.equal(1);
    expect(log.count('"warning"')).to.equal(4);
  });

  it("survives many edits at once, and ends with what the files hold", async () => {
    const folder = await openIt({ debounceMs: 1 });
    for (let round = 0; round < 40; round++) {
      const name = `${round % 5}.yaml`;
      if (round % 7 === 0) await rm(at(name), { force: true });
      else await write(name, pairYaml(`c${round % 5}`, `https://r${round}.example.com`));
    }
    const files = (await readdir(path)).sort();
    await eventually(() => names(folder) === files.map((name) => `default/c${name[0]}`).join(" "));
    await folder.rescan();
    expect(address(folder, "default/c4")).to.equal("https://r39.example.com");
  });
});
