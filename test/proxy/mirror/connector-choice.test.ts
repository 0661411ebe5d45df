import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addImage } from "../../support/fake-registry-content.ts";
import type { PlainResponse } from "../../support/plain-request.ts";
import {
  type MirrorCluster,
  type MirroredConnector,
  startMirrorCluster,
} from "./mirror-cluster.ts";

describe("the connector of a Pod's image", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let based: FakeRegistry;
  let cluster: MirrorCluster;
  let count = 0;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "basic", tls: true }));
    based = resources.add(
      await startFakeRegistry({ auth: "basic", tls: true, basePath: "/docker/x" }),
    );
    addImage(registry.repository("app/web"), "1");
    addImage(registry.repository("docker/x/app/web"), "1");
    addImage(based.repository("app/web"), "1");
    cluster = resources.add(
      await startMirrorCluster({
        imageHosts: [registry.host, based.host, "docker.io", "*.example.com"],
      }),
    );
  });
  after(resources.stop);
  beforeEach(() => {
    registry.requests.length = 0;
    based.requests.length = 0;
    cluster.reports.length = 0;
    count += 1;
  });

  const own = (): string => `team-${count}`;

  /** Adds connectors to a namespace of the test's own: `harbor` or `kube-public/harbor`, and their address. */
  const connect = async (name: string, address: string, options?: MirroredConnector) => {
    const [last = "", namespace = own()] = name.split("/").toReversed();
    const { ca } = address.startsWith(based.url) ? based : registry;
    await cluster.connect(last, address, { namespace, ca, ...options });
  };
  const allow = (...names: readonly string[]): void => {
    for (const name of names) {
      const ref = name.includes("/") ? name : `${own()}/${name}`;
      cluster.rights.add(`${own()}/builder get ${ref}`);
    }
  };
  const pull = (
    at: Pick<FakeRegistry, "host">,
    repository: string,
    annotation?: string,
  ): Promise<PlainResponse> => {
    const token = cluster.tokenOf(`${own()}/builder`);
    const user = annotation === undefined ? "connectors" : `connector=${annotation}`;
    return cluster.ask({ path: `${repository}/manifests/1`, ns: at.host, token, user });
  };
  const usedConnector = async (answer: PlainResponse): Promise<string | undefined> => {
    expect(answer.status, answer.phrase).to.equal(200);
    const report = await eventually(
      () => cluster.reports.at(-1),
      () => "there is no report",
    );
    return report.connector;
  };

  it("is the one at the registry's address", async () => {
    await connect("harbor", registry.url);
    await connect("elsewhere", "https://elsewhere.example.com");
    allow("harbor", "elsewhere");
    expect(await usedConnector(await pull(registry, "app/web"))).to.equal(`${own()}/harbor`);
  });

  it("is found by its new address as soon as that changes", async () => {
    await connect("harbor", "https://old.example.com");
    allow("harbor");
    expect((await pull(registry, "app/web")).status).to.equal(403);
    await connect("harbor", registry.url);
    expect(await usedConnector(await pull(registry, "app/web"))).to.equal(`${own()}/harbor`);
    cluster.api.remove("connectors", "harbor", own());
    await eventually(
      async () => (await pull(registry, "app/web")).status === 403,
      () => "a connector that is gone is still used",
    );
  });

  it("has the base path that the image's name begins with, which is not sent twice", async () => {
    await connect("based", `${based.url}/docker/x`);
    allow("based");
    expect(await usedConnector(await pull(based, "docker/x/app/web"))).to.equal(`${own()}/based`);
    expect(based.requests.at(-1)?.url).to.equal("/docker/x/v2/app/web/manifests/1");
    for (const repository of ["app/web", "docker/xy/app/web", "docker/x"]) {
      const refused = await pull(based, repository);
      expect(refused.status, repository).to.equal(403);
      expect(refused.phrase).to.contain("no connector of");
    }
  });

  it("is the one with the longest base path that may be used", async () => {
    await connect("root", registry.url);
    await connect("long", `${registry.url}/docker/x`);
    allow("root");
    expect(await usedConnector(await pull(registry, "docker/x/app/web"))).to.equal(`${own()}/root`);
    count += 1;
    await connect("root", based.url);
    await connect("short", `${based.url}/docker`);
    await connect("long", `${based.url}/docker/x`);
    allow("root", "short", "long");
    expect(await usedConnector(await pull(based, "docker/x/app/web"))).to.equal(`${own()}/long`);
  });

  it("comes from kube-public where the namespace has none that may be used", async () => {
    await connect("kube-public/shared", registry.url);
    try {
      const refused = await pull(registry, "app/web");
      expect(refused.phrase).to.contain(`allow system:serviceaccount:${own()}:builder to get`);
      expect(refused.phrase).to.contain('"shared" in namespace kube-public');
      count += 1;
      allow("kube-public/shared");
      expect(await usedConnector(await pull(registry, "app/web"))).to.equal("kube-public/shared");
      count += 1;
      await connect("own", registry.url);
      allow("kube-public/shared", "own");
      expect(await usedConnector(await pull(registry, "app/web"))).to.equal(`${own()}/own`);
    } finally {
      cluster.api.remove("connectors", "shared", "kube-public");
    }
  });

  it("is none where two fit: the refusal names those that may be used", async () => {
    await connect("one", registry.url);
    await connect("two", registry.url);
    await connect("three", registry.url);
    allow("one", "two");
    const refused = await pull(registry, "app/web");
    expect(refused.status).to.equal(403);
    expect(refused.phrase).to.contain(`may use ${own()}/one and ${own()}/two, which`);
    expect(refused.phrase).not.to.contain("three");
    count += 1;
    await connect("one", registry.url);
    await connect("two", registry.url);
    allow("two");
    expect(await usedConnector(await pull(registry, "app/web"))).to.equal(`${own()}/two`);
  });

  it("is the one of the annotation, where it fits", async () => {
    await connect("one", registry.url);
    await connect("two", registry.url);
    await connect("other", "https://other.example.com");
    allow("one", "two", "other");
    for (const [annotation, used] of [
      ["two", "two"],
      [`${own()}/one`, "one"],
    ] as const) {
      cluster.reports.length = 0;
      const answer = await pull(registry, "app/web", annotation);
      expect(await usedConnector(answer)).to.equal(`${own()}/${used}`);
    }
    for (const annotation of ["other", "missing", "No Name", "../one", ""]) {
      const refused = await pull(registry, "app/web", annotation);
      expect(refused.phrase, annotation).to.contain(`${own()}/one and ${own()}/two`);
    }
  });

  it("may be one of another namespace by the annotation", async () => {
    const elsewhere = `${own()}-b/harbor`;
    await connect(elsewhere, registry.url);
    const refused = await pull(registry, "app/web", elsewhere);
    expect(refused.phrase).to.contain("no connector of").and.contain(`allow system:`);
    const absent = await pull(registry, "app/web", `${own()}-b/absent`);
    expect(absent.phrase.replaceAll("absent", "harbor")).to.equal(refused.phrase);
    count += 1;
    const other = `${own()}-b/harbor`;
    await connect(other, registry.url);
    allow(other);
    expect(await usedConnector(await pull(registry, "app/web", other))).to.equal(other);
    expect((await pull(registry, "app/web")).status).to.equal(403);
  });

  it("has the very host and port, by https, in its own address", async () => {
    const port = registry.port + 1;
    await connect("http", registry.url.replace("https:", "http:"));
    await connect("port", `https://127.0.0.1:${port}`);
    await connect("extension", "https://main.example.com", {
      spec: { addressExtensions: [registry.url] },
    });
    await connect("git", registry.url, { spec: { connectorClassName: "git" } });
    allow("http", "port", "extension", "git");
    const refused = await pull(registry, "app/web");
    expect(refused.status).to.equal(403);
    expect(refused.phrase).to.contain(`no connector of ${own()} or kube-public is at`);
    expect(registry.requests).to.deep.equal([]);
  });

  it("is the same by all names of Docker Hub", async () => {
    await connect("hub", "https://docker.io");
    for (const host of ["docker.io", "registry-1.docker.io", "index.docker.io"]) {
      const refused = await pull({ host }, "library/alpine");
      expect(refused.phrase, host).to.contain(`"hub" in namespace ${own()}`);
    }
  });

  it("is looked for among sixteen at most, and by the annotation among any number", async () => {
    for (let number = 0; number < 17; number += 1) await connect(`c-${number}`, registry.url);
    allow("c-3");
    const reviews = (): number =>
      cluster.api.requests.filter(({ path }) => path.endsWith("subjectaccessreviews")).length;
    const before = reviews();
    const refused = await pull(registry, "app/web");
    expect(refused.status).to.equal(403);
    expect(refused.phrase).to.contain("17 connectors of").and.contain("annotation");
    expect(reviews()).to.equal(before);
    expect(await usedConnector(await pull(registry, "app/web", "c-3"))).to.equal(`${own()}/c-3`);
  });
});
