/** Connectors and Secrets that change under a running process, and under mounted volumes. */
import { hash } from "node:crypto";
import { readlink, truncate } from "node:fs/promises";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { expect } from "chai";
import { makeCertificate } from "../support/certificates.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { noise } from "../support/oci-image.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

describe("standalone mode: changes of its folder", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let login = { username: "alice", password: "secret-of-alice" };
  const ref = "team-a/hub";
  let first: FakeRegistry;
  let second: FakeRegistry;
  let host: CiHost;
  let volume: Volume;

  before(async () => {
    const options = { auth: "bearer", users: { alice: login.password } } as const;
    first = resources.add(await startFakeRegistry(options));
    second = resources.add(await startFakeRegistry({ ...options, tls: true }));
    addImage(first.repository("app"), "1", { seed: "first" });
    addImage(second.repository("app"), "1", { seed: "second" });
    host = resources.add(await startCiHost());
    host.keepSecret("the registry's password", login.password);
  });
  afterEach(async () => {
    for (const { auth } of [first, second]) {
      for (const token of auth.tokens.keys()) host.keepSecret(token.slice(0, 12), token);
    }
    expect(await host.leaks()).to.deep.equal([]);
  });
  after(resources.stop);

  const original = (): string => connectorYaml({ ref, address: first.url, login });
  /** Which registry's image it is: `first` or `second`; or the error. */
  async function pull(by = volume): Promise<string> {
    const { status, body, headers } = await by.request("GET", ref, "app/manifests/1");
    if (status !== 200) return `${status} ${JSON.parse(body.toString()).errors[0].message}`;
    const digest = headers["docker-content-digest"];
    return digest === first.repository("app").tags.get("1") ? "first" : "second";
  }
  const pullsAre = (wanted: string): Promise<unknown> =>
    eventually(
      async () => (await pull()) === wanted,
      () => `pulls are not ${wanted}`,
    );

  it("a new connector can be used at once", async () => {
    expect((await host.run("mount", "volume", "--connectors", ref)).stderr).to.include(
      'connector "team-a/hub" not found: there is no Connector team-a/hub in ',
    );
    await host.write("hub.yaml", original());
    volume = await host.mount(
      ...(["volume", ref, "--configuration", "docker-config,buildkitd"] as const),
      "--params",
      JSON.stringify({ buildkitd: { mirror: true } }),
    );
    expect(await pull()).to.equal("first");
    expect(await volume.read("buildkitd.toml")).to.include(`[registry."${first.host}"]`);
  });

  it("a changed address counts for pulls and for mounted files, but not for what is under way", async () => {
    await host.write("other.yaml", connectorYaml({ ref: "team-a/other", address: first.url }));
    await host.waitForLog("connectors were added, removed or changed", "team-a/other");
    const unchanged = await host.mount("unchanged", "team-a/other");
    const generation = (path: string): Promise<string> => readlink(join(path, "..data"));
    const before = await generation(unchanged.path);

    const blob = noise("slow", 300_000);
    const { promise: goOn, resolve } = Promise.withResolvers<void>();
    const undo = first.on("GET blob", async ({ response }) => {
      response.writeHead(200, { "Content-Length": blob.length });
      response.write(blob.subarray(0, 1000));
      await goOn;
      response.end(blob.subarray(1000));
    });
    const digest = `sha256:${hash("sha256", blob)}`;
    const slow = volume.request("GET", ref, `app/blobs/${digest}`);
    await eventually(
      () => first.requests.some(({ target }) => target.kind === "blob"),
      () => "the slow pull has not begun",
    );

    await host.write("hub.yaml", connectorYaml({ ref, address: second.url, login }));
    const problem = `503 the registry ${second.url} can't be reached: its certificate is signed by an authority that is not trusted`;
    await pullsAre(problem);
    const { ca = "" } = second;
    await host.write("hub.yaml", connectorYaml({ ref, address: second.url, login, ca }));
    await pullsAre("second");
    const hasNewName = async (): Promise<boolean> =>
      (await volume.read("buildkitd.toml")).includes(`[registry."${second.host}"]`);
    await eventually(hasNewName, () => "buildkitd.toml does not name the new registry");
    expect(await volume.read("buildkitd.toml")).not.to.include(first.host);
    expect(await generation(unchanged.path)).to.equal(before);

    resolve();
    const { body, complete } = await slow;
    expect({ complete, isWhole: body.equals(blob) }).to.deep.equal({
      complete: true,
      isWhole: true,
    });
    undo();
    await host.unmount("unchanged");
    await host.write("hub.yaml", original());
    await pullsAre("first");
  });

  it("a rotated password counts for the next pull, whichever side has it first", async () => {
    const rotate = (password: string): void => {
      host.keepSecret(password, password);
      login = { ...login, password };
    };
    const rotateAtRegistry = (): void => {
      for (const { auth } of [first, second]) {
        auth.users.set("alice", login.password);
        auth.tokens.clear(); // registries take back what was given for the old one
      }
    };
    rotate("rotated-at-the-registry");
    rotateAtRegistry();
    expect(await pull()).to.match(/^403 the token server .* refused the connector's login \(401\)/);
    await host.write("hub.yaml", original());
    expect(await pull(), "without waiting for anything").to.equal("first");

    rotate("rotated-in-the-folder");
    await host.write("hub.yaml", original());
    rotateAtRegistry();
    expect(await pull()).to.equal("first");
  });

  for (const [what, spoil] of [
    [
      "has a slip of the pen",
      (yaml: string) => yaml.replace('"kind": "Secret",', '"kind": "Secret"'),
    ],
    ["lacks what it needs", (yaml: string) => yaml.replace('"address":', '"adress":')],
    [
      "has a password that is no text",
      (yaml: string) => yaml.replace(/"password": ".*"/, '"password": 12345678'),
    ],
    ["is half written", (yaml: string) => yaml.slice(0, -30)],
    ["is no YAML", () => "{secret-of-alice"],
  ] as const) {
    it(`a file that ${what} keeps what it held, and says so`, async () => {
      const before = host.logged("this file has an error").length;
      await host.write("hub.yaml", spoil(original()));
      await eventually(
        () => host.logged("this file has an error").length > before,
        () => "the log says nothing",
      );
      const line = host.logged("this file has an error").at(-1) ?? "";
      const { level, file, reason, message } = JSON.parse(line);
      expect({ level, file }).to.deep.equal({
        level: "error",
        file: join(host.connectors, "hub.yaml"),
      });
      expect(message).to.include("its last contents stay in use");
      expect(reason).to.match(/line \d+/);
      first.auth.tokens.clear(); // the password itself is needed again
      expect(await pull()).to.equal("first");

      const { ca = "" } = second;
      await host.write("hub.yaml", connectorYaml({ ref, address: second.url, login, ca }));
      await pullsAre("second");
      await host.write("hub.yaml", original());
      await pullsAre("first");
    });
  }

  it("SIGHUP reads the folder again, and says once more what is wrong with it", async () => {
    await host.write("broken.yaml", "x: [\n");
    const said = (): readonly string[] => host.logged("this file has an error", "broken.yaml");
    await eventually(
      () => said().length === 1,
      () => "the log says nothing",
    );
    for (const count of [1, 2]) {
      host.program().signal("SIGHUP");
      await eventually(
        () => host.logged("the connectors folder was read again", ref).length === count,
        () => "the folder was not read again",
      );
      expect(said()).to.have.lengthOf(1 + count);
    }
    expect(await pull()).to.equal("first");
    await host.remove("broken.yaml");
  });

  it("a file that is emptied, as it is before it is written anew, keeps what it held", async () => {
    await truncate(join(host.connectors, "hub.yaml"));
    await host.waitForLog("this file has an error", "it is empty");
    expect(await pull()).to.equal("first");
    await host.mount("late", ref);
    await host.unmount("late");
    await host.write("hub.yaml", original());
  });

  it("a connector without its Secret says which one is missing", async () => {
    const [connector = ""] = original().split("\n---\n");
    await host.write("hub.yaml", connector);
    await host.waitForLog("this connector has no usable credential", "team-a/hub");
    expect(await pull()).to.match(
      /^403 the connector team-a\/hub has no login: .*there is no Secret team-a\/hub: add it/,
    );
    await host.write("hub.yaml", original());
    await pullsAre("first");
  });

  it("a connector with more patterns than the next release takes works, with a warning", async () => {
    const repositories = ["**", ...Array<string>(1_000).fill("a/*")];
    const params = [{ name: "rules", value: [{ verbs: ["push"], repositories }] }];
    const document = original().replace('"params": []', `"params": ${JSON.stringify(params)}`);
    await host.write("hub.yaml", document);
    await host.waitForLog("the next release refuses this connector", "1001 patterns");
    expect(await pull()).to.equal("first");
    await host.write("hub.yaml", original());
    await pullsAre("first");
  });

  it("a deleted connector is missed by its name, and its volumes wait for it", async () => {
    const hosts = async (): Promise<readonly string[]> =>
      Object.keys(JSON.parse(await volume.read("config.json")).auths);
    const before = await hosts();
    await host.remove("hub.yaml");
    const missing = `there is no Connector team-a/hub in ${host.connectors}; the folder has: team-a/other`;
    await pullsAre(`404 ${missing}`);
    const { status, stderr } = await host.run("mount", "another", "--connectors", ref);
    expect(status).to.equal(1);
    expect(stderr).to.include(missing);
    expect(await hosts()).to.deep.equal(before);

    await host.write("hub.yaml", original());
    await pullsAre("first");
  });

  it("a renewed client certificate is shown to the registry, and its key is seen nowhere", async () => {
    const root = await makeCertificate({ name: "root", isAuthority: true });
    const own = await makeCertificate({ name: "127.0.0.1", issuer: root });
    const tls = {
      key: own.privateKey,
      cert: own.certificate,
      ca: root.certificate,
      requestCert: true,
    };
    const strict = resources.add(
      await startFakeRegistry({ auth: "bearer", users: { alice: login.password }, tls }),
    );
    const shown = new Set<string>();
    strict.on(
      "* *",
      ({ request, next }) => {
        shown.add(String((request.socket as TLSSocket).getPeerCertificate().subject.CN));
        return next();
      },
      "before auth",
    );
    const documents = { ref: "team-a/strict", address: strict.url, ca: root.certificate };
    await host.write("strict.yaml", connectorYaml(documents));
    await host.waitForLog("connectors were added, removed or changed", "team-a/strict");
    const mounted = await host.mount("strict", "team-a/strict");
    const status = async (): Promise<string> => {
      const response = await mounted.request("GET", "team-a/strict", "app/tags/list");
      return `${response.status} ${response.body}`;
    };
    expect(await status()).to.match(/^503 .*it wants a client certificate.*clientCertSecret/);
    for (const name of ["first-client", "second-client"]) {
      const clientCertificate = await makeCertificate({ name, issuer: root });
      host.keepSecret(`the key of ${name}`, clientCertificate.privateKey.split("\n")[1] ?? "");
      await host.write("strict.yaml", connectorYaml({ ...documents, login, clientCertificate }));
      await eventually(
        async () => (await status()).startsWith("404") && shown.has(name),
        () => `the registry was shown ${[...shown].join(", ") || "nothing"}`,
      );
    }
    for (const token of strict.auth.tokens.keys()) host.keepSecret(token.slice(0, 12), token);
    await host.unmount("strict");
  });
});
