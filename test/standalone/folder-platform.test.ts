import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { createAuthority } from "../../src/certificate-authority.ts";
import type { Connector } from "../../src/connector/connector.ts";
import type { Result, UpstreamSecrets } from "../../src/connector/platform.ts";
import {
  type ConnectorFolder,
  openConnectorFolder,
} from "../../src/standalone/connector-folder.ts";
import {
  findInFolder,
  mayUseNamed,
  secretsInFolder,
} from "../../src/standalone/folder-platform.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { connectorYaml, pairYaml, password, secretYaml } from "./manifests.ts";

describe("the surroundings of standalone mode: a folder", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let path: string;
  let folder: ConnectorFolder;

  const write = async (name: string, text: string): Promise<void> => {
    await writeFile(join(path, name), text, { mode: 0o600 });
  };
  const connectorCalled = async (name: string): Promise<Connector> => {
    const found = await findInFolder(folder)({ namespace: "default", name });
    if (found.state !== "found") throw new Error(found.reason);
    return found.connector;
  };
  const secretsOf = async (name: string, fresh = false): Promise<Result<UpstreamSecrets>> =>
    secretsInFolder(folder)(await connectorCalled(name), { fresh });

  beforeEach(async () => {
    path = resources.add(makeTempFolder("surroundings")).path;
    await write("a.yaml", pairYaml("harbor"));
    folder = resources.add(
      await openConnectorFolder({
        folder: path,
        log: () => {},
        debounceMs: 3_600_000,
        rescanMs: 3_600_000,
      }),
    );
  });
  afterEach(resources.stop);

  it("find a connector, or say which there are", async () => {
    expect(await connectorCalled("harbor")).to.include({ uid: "default/harbor" });
    expect(await findInFolder(folder)({ namespace: "team-b", name: "ghcr" })).to.deep.equal({
      state: "missing",
      reason: `there is no Connector team-b/ghcr in ${path}; the folder has: default/harbor`,
    });
  });

  it("find a connector whose file was written just now, or mended", async () => {
    await write("b.yaml", connectorYaml("nexus", "nowhere"));
    const wrong = await findInFolder(folder)({ namespace: "default", name: "nexus" });
    expect(wrong).to.have.property("state", "invalid");
    await write("b.yaml", connectorYaml("nexus"));
    expect(await connectorCalled("nexus")).to.include({ uid: "default/nexus" });
  });

  it("say what is wrong with a connector, and in which file", async () => {
    await write("b.yaml", connectorYaml("bad", "nowhere"));
    await folder.rescan();
    const result = await findInFolder(folder)({ namespace: "default", name: "bad" });
    expect(result).to.have.property("state", "invalid");
    expect(result)
      .to.have.property("reason")
      .that.includes(join(path, "b.yaml"))
      .and.includes("spec.address: found");
  });

  it("read the entry of a docker configuration that is for a connector's address", async () => {
    const auth = (login: string): object => ({ auth: Buffer.from(login).toString("base64") });
    const pullSecret = (auths: object): string =>
      JSON.stringify({
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name: "nexus" },
        type: "kubernetes.io/dockerconfigjson",
        stringData: { ".dockerconfigjson": JSON.stringify({ auths }) },
      });
    const host = (await connectorCalled("harbor")).address.imageHost;
    const writeNexus = (auths: object): Promise<void> =>
      write("b.yaml", `${connectorYaml("nexus")}---\n${pullSecret(auths)}`);
    await writeNexus({ "other.test": auth("other:S3CR3T"), [host]: auth(`me:${password}`) });
    await folder.rescan();
    const found = await secretsOf("nexus");
    expect(found).to.have.nested.property("value.credential.username", "me");
    await writeNexus({ "other.test": auth("other:S3CR3T") });
    await folder.rescan();
    const missing = await secretsOf("nexus");
    expect(missing).to.have.property("reason").that.contains("found no entry for this registry");
    expect(JSON.stringify(missing)).not.to.contain("S3CR3T").and.not.contain("other.test");
  });

  it("read the credential and the certificates of a connector", async () => {
    const [own, shared] = await Promise.all(
      ["own", "shared"].map(async (name) =>
        (await createAuthority(name, new Date())).certificate.trim(),
      ),
    );
    const base64 = (text = ""): string => Buffer.from(text).toString("base64");
    await write(
      "b.yaml",
      `${connectorYaml("nexus").replace("  auth", "  caCertSecretRef: {name: ca}\n  auth")}---
apiVersion: v1
kind: Secret
metadata: {name: nexus}
type: cpaas.io/distribution-registry-token
data: {username: ${base64("me")}, password: ${base64(password)}}
---
{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca"}, "data": {"ca.crt": "${base64(own)}"}}
---
${JSON.stringify({
  apiVersion: "v1",
  kind: "Secret",
  metadata: { name: "any", namespace: "other", labels: { "connectors.cpaas.io/ca-cert": "true" } },
  stringData: { "x.pem": shared },
})}`,
    );
    await folder.rescan();
    expect(await secretsOf("nexus")).to.deep.equal({
      ok: true,
      value: { credential: { username: "me", password }, caCertificates: [own, shared] },
    });
    expect(await secretsOf("harbor")).to.deep.equal({
      ok: true,
      value: { credential: { username: "robot", password }, caCertificates: [shared] },
    });
  });

  it("have no credential for an anonymous connector", async () => {
    await write("b.yaml", connectorYaml("public").replace(/ {2}auth.*\n/, ""));
    await folder.rescan();
    expect(await secretsOf("public")).to.deep.equal({
      ok: true,
      value: { credential: undefined, caCertificates: [] },
    });
  });

  it("say which Secret is missing in which folder, and what is wrong with it", async () => {
    await write("b.yaml", connectorYaml("ghcr"));
    await folder.rescan();
    expect(await secretsOf("ghcr"))
      .to.have.property("reason")
      .that.includes(`in ${path}: there is no Secret default/ghcr`);
    await write("c.yaml", secretYaml("ghcr").replace("robot", "ro:bot"));
    await folder.rescan();
    const result = await secretsOf("ghcr");
    expect(result).to.have.property("reason").that.includes('username: found a ":"');
    expect(JSON.stringify(result)).not.to.include(password);
  });

  it("parse Secrets once for all requests until the folder is read again", async () => {
    const read = secretsInFolder(folder);
    const connector = await connectorCalled("harbor");
    const result = await read(connector);
    expect(await read(connector)).to.equal(result);
    await write("a.yaml", pairYaml("harbor").replace(password, "new"));
    await folder.rescan();
    expect(await read(connector)).to.have.nested.property("value.credential.password", "new");
  });

  it("read the folder anew when asked for fresh Secrets", async () => {
    await write("a.yaml", pairYaml("harbor").replace("robot", "robot2"));
    const usernames = [await secretsOf("harbor"), await secretsOf("harbor", true)].map((result) =>
      result.ok ? result.value.credential?.username : result.reason,
    );
    expect(usernames).to.deep.equal(["robot", "robot2"]);
  });

  it("show no part of a Secret, whatever happens to its file", async () => {
    const text = pairYaml("harbor");
    const signs = fc.constantFrom("", "\n", "\t", "'", '"', "{", "]", ": ", "---\n", "|", "\0");
    await fc.assert(
      fc.asyncProperty(fc.nat(text.length), fc.nat(10), signs, async (at, cut, put) => {
        await write("a.yaml", text.slice(0, at) + put + text.slice(at + cut));
        const lines: unknown[] = [];
        const mutant = await openConnectorFolder({
          folder: path,
          log: (...line) => lines.push(line),
        });
        const found = await findInFolder(mutant)({ namespace: "default", name: "harbor" });
        const secrets =
          found.state === "found" ? await secretsInFolder(mutant)(found.connector) : found;
        await mutant.stop();
        const shown = JSON.stringify([lines, "reason" in secrets && secrets.reason]);
        expect(shown).not.to.include("horse");
      }),
      { numRuns: 300 },
    );
  });

  it("let a volume's token open the connectors that the volume names", async () => {
    const who = { user: "volume:1", groups: [], connectors: ["team-a/harbor"] };
    const harbor = { namespace: "team-a", name: "harbor" };
    for (const verb of ["pull", "push"] as const) {
      expect(await mayUseNamed(who, harbor, verb)).to.have.property("ok", true);
      expect(await mayUseNamed(who, { namespace: "team-b", name: "ghcr" }, verb)).to.deep.equal({
        ok: false,
        reason: "this volume opens team-a/harbor, not team-b/ghcr: mount a volume that names it",
      });
      const nobody = { ...who, connectors: [] };
      expect(await mayUseNamed(nobody, harbor, verb)).to.have.property("ok", false);
    }
  });

  it("let whoever mounts a volume name any connector", async () => {
    const result = await mayUseNamed(
      { user: "", groups: [] },
      { namespace: "a", name: "b" },
      "push",
    );
    expect(result).to.have.property("ok", true);
  });
});
