/** Connectors of standalone mode that log in with a token of a file, or with a credential helper. */
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { type Issuer, startIssuer } from "../support/identities/issuer.ts";
import { addOidcExchanges, type OidcRegistry, robot } from "../support/identities/oidc-registry.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type CiHost, runCommand, startCiHost, type Volume } from "./ci-host.ts";

const subject = "spiffe://example.com/ci";

describe("standalone mode: logins with an identity", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let folder: string;
  let registry: FakeRegistry;
  let fake: OidcRegistry;
  let issuer: Issuer;
  let host: CiHost;
  let volume: Volume;

  before(async () => {
    folder = resources.add(makeTempFolder("identities")).path;
    await Promise.all(["tokens", "helpers"].map((name) => mkdir(join(folder, name))));
    registry = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
    addImage(registry.repository("app"), "1");
    issuer = resources.add(await startIssuer());
    fake = addOidcExchanges(registry, { issuer: issuer.url, subject });
    await writeFile(
      join(folder, "helpers/docker-credential-test"),
      '#!/bin/sh\ncat >/dev/null\nprintf \'{"Username":"alice","Secret":"secret-of-alice"}\'\n',
    );
    await chmod(join(folder, "helpers/docker-credential-test"), 0o755);
    const args = [
      "--token-files",
      join(folder, "tokens"),
      "--credential-helpers",
      join(folder, "helpers"),
    ];
    host = resources.add(await startCiHost({ args }));
    await host.write("connectors.yaml", names.map((name) => yaml(name)).join("---\n"));
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", names.map((name) => `team-a/${name}`).join(","));
    host.keepSecret("the helper's secret", "secret-of-alice");
  });
  after(async () => {
    for (const [index, token] of issuer.issued.entries()) host.keepSecret(`token ${index}`, token);
    for (const [index, login] of fake.given.entries()) host.keepSecret(`login ${index}`, login);
    expect(await host.leaks()).to.deep.equal([]);
    await resources.stop();
  });

  const quay = (tokenFile: string): Record<string, string> => ({
    preset: "quay",
    robot,
    tokenFile,
  });
  const auths: Readonly<Record<string, readonly [method: string, params: Record<string, string>]>> =
    {
      good: ["oidcAuth", quay("good.jwt")],
      renewed: ["oidcAuth", quay("renewed.jwt")],
      absent: ["oidcAuth", quay("absent.jwt")],
      expired: ["oidcAuth", quay("expired.jwt")],
      other: ["oidcAuth", quay("other.jwt")],
      cloud: ["oidcAuth", { ...quay("cloud.jwt"), audience: "sts.amazonaws.com" }],
      outside: ["oidcAuth", quay("outside.jwt")],
      text: ["oidcAuth", quay("text.jwt")],
      helper: ["execAuth", { helper: "test" }],
      nohelper: ["execAuth", { helper: "absent" }],
    };
  const names = Object.keys(auths);
  const yaml = (name: string): string => {
    const [method, params] = auths[name] ?? ["", {}];
    const list = Object.entries(params).map(([param, value]) => ({ name: param, value }));
    return `apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata: {name: ${name}, namespace: team-a}
spec:
  connectorClassName: oci
  address: ${registry.url}
  auth: ${JSON.stringify({ name: method, params: list })}
  caCertSecretRef: {name: ca}
---
${JSON.stringify({
  apiVersion: "v1",
  kind: "Secret",
  metadata: { name: "ca", namespace: "team-a" },
  stringData: { "ca.crt": registry.ca },
})}
`;
  };
  const write = (file: string, claims: Parameters<Issuer["issue"]>[0]): Promise<void> =>
    writeFile(join(folder, "tokens", file), `${issuer.issue({ sub: subject, ...claims })}\n`);
  const pull = async (name: string): Promise<string> => {
    const { status, body } = await volume.request("GET", `team-a/${name}`, "app/manifests/1");
    return `${status} ${status === 200 ? "" : body}`;
  };

  it("pull with the token of a file", async () => {
    await write("good.jwt", { aud: registry.url });
    expect(await pull("good")).to.match(/^200/);
    await host.waitForLog(
      "a login was obtained with an identity",
      "oidcAuth of token file good.jwt",
    );
  });

  it("take a token that was renewed after the old one had expired", async () => {
    await write("renewed.jwt", { aud: registry.url, lifetimeSeconds: -5 });
    expect(await pull("renewed")).to.contain("found a token that has expired at");
    await write("renewed.jwt", { aud: registry.url });
    await sleep(2_000);
    expect(await pull("renewed")).to.match(/^200/);
  });

  it("say what is wrong with a file", async () => {
    await write("expired.jwt", { aud: registry.url, lifetimeSeconds: -5 });
    await write("other.jwt", { aud: [registry.url, "https://other.test"] });
    await write("cloud.jwt", { aud: "sts.amazonaws.com" });
    await writeFile(join(folder, "outside"), issuer.issue({ aud: registry.url, sub: subject }));
    await symlink(join(folder, "outside"), join(folder, "tokens/outside.jwt"));
    await writeFile(join(folder, "tokens/text.jwt"), "S3CR3T-text");
    const before = fake.exchanges.length;
    const tokens = join(folder, "tokens");
    expect(await pull("absent")).to.contain(`${tokens}/absent.jwt: found nothing, wanted a file`);
    expect(await pull("expired")).to.contain("that whatever writes it has renewed");
    expect(await pull("other"))
      .to.contain("found a token for the audience")
      .and.contain("alone");
    expect(await pull("cloud")).to.contain("found the audience sts.amazonaws.com");
    expect(await pull("outside")).to.contain("found a link that leads out of the folder");
    expect(await pull("text"))
      .to.contain("found something that is no JWT")
      .and.not.contain("S3CR3T");
    expect(fake.exchanges).to.have.length(before);
  });

  it("pull with the login of a credential helper", async () => {
    expect(await pull("helper")).to.match(/^200/);
    expect(await pull("nohelper")).to.contain("docker-credential-absent can't be run (ENOENT)");
  });

  it("are named by the check of the folder, which tries none", async () => {
    const before = [fake.exchanges.length, issuer.issued.length];
    const { stdout } = await runCommand(["check", host.connectors, "--login"]);
    expect(stdout).to.contain("token file good.jwt");
    expect(stdout).to.contain("credential helper test");
    expect(stdout).to.contain("it is obtained with an identity when it is used");
    expect([fake.exchanges.length, issuer.issued.length]).to.deep.equal(before);
  });

  it("refuse a ServiceAccount, which only a cluster has", async () => {
    const account = yaml("good").replace(
      '"name":"oidcAuth"',
      '"name":"oidcAuth","serviceAccountRef":{"name":"a"}',
    );
    await host.write("wrong.yaml", account.replace("name: good", "name: wrong"));
    await host.waitForLog("there are no ServiceAccounts in standalone mode");
  });
});
