import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addImage } from "../../support/fake-registry-content.ts";
import type { TestImage } from "../../support/oci-image.ts";
import { plainRequest } from "../../support/plain-request.ts";
import { askConnect } from "../forward-mode/connect-client.ts";
import { basicAuth, errorIn } from "../test-client.ts";
import {
  imagesAudience,
  jwt,
  type MirrorCluster,
  type PodToken,
  registryLogin,
  startMirrorCluster,
  volumesAudience,
} from "./mirror-cluster.ts";

const unlisted = "unlisted.example.com";

const isOfWatch = (path: string): boolean =>
  path === "/apis/connectors.alauda.io/v1alpha1/connectors";

describe("the mirror for container runtimes", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let image: TestImage;
  let ns: string;
  let cluster: MirrorCluster;
  let builder: PodToken;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
    image = addImage(registry.repository("app/web"), "1");
    ns = registry.host;
    cluster = resources.add(
      await startMirrorCluster({ imageHosts: [ns, "docker.io", "*.example.com"] }),
    );
    cluster.rights.add("team-a/builder get team-a/harbor");
    await cluster.connect("harbor", registry.url, { ca: registry.ca });
    builder = cluster.tokenOf("team-a/builder");
  });
  after(resources.stop);
  beforeEach(() => {
    registry.requests.length = 0;
    cluster.reports.length = 0;
  });

  const path = "app/web/manifests/1";
  const logins = (): readonly (string | undefined)[] =>
    registry.requests.map(({ headers }) => headers.authorization);

  it("pulls an image by its own name, with the connector's login", async () => {
    const challenged = await cluster.ask({ method: "HEAD", path, ns });
    expect(challenged.status).to.equal(401);
    expect(challenged.headers["www-authenticate"]).to.equal('Basic realm="connectors-proxy"');
    const head = await cluster.ask({ method: "HEAD", path, ns, token: builder });
    expect(head.status).to.equal(200);
    expect(head.headers["docker-content-digest"]).to.equal(image.manifest.digest);
    const manifest = await cluster.ask({
      path: `app/web/manifests/${image.manifest.digest}`,
      ns,
      token: builder,
    });
    expect(manifest.body).to.deep.equal(image.blobs.get(image.manifest.digest));
    for (const { digest } of [image.config, ...image.layers]) {
      const blob = await cluster.ask({ path: `app/web/blobs/${digest}`, ns, token: builder });
      expect(blob.body).to.deep.equal(image.blobs.get(digest));
    }
    const targets = registry.requests.map(({ url }) => url);
    expect(targets.filter((url) => url.includes("ns="))).to.deep.equal([]);
    expect(logins().filter((login) => login?.includes(builder.token))).to.deep.equal([]);
    const asked = registry.requests.find(({ url }) => url.startsWith("/token"));
    expect(asked?.headers.authorization).to.equal(
      basicAuth(registryLogin.password, registryLogin.username),
    );
  });

  it("reports the Pod, the ServiceAccount and the image", async () => {
    await cluster.ask({ path, ns, token: builder });
    await eventually(
      () => cluster.reports.length > 0,
      () => "there is no report",
    );
    const [report] = cluster.reports;
    expect(report).to.deep.include({
      image: `${ns}/app/web:1`,
      ref: { namespace: "team-a", name: "harbor" },
      connector: "team-a/harbor",
      operation: "pull manifest",
      decision: "allowed",
      status: 200,
    });
    expect(report?.identity?.user).to.equal("system:serviceaccount:team-a:builder");
    expect(report?.identity?.pod?.namespace).to.equal("team-a");
  });

  describe("refuses", () => {
    it("whoever may not use the connector, and names the Role in the status line", async () => {
      const other = cluster.tokenOf("team-a/other");
      const refused = await cluster.ask({ method: "HEAD", path, ns, token: other });
      expect(refused.status).to.equal(403);
      expect(refused.phrase).to.match(
        /^allow system:serviceaccount:team-a:other to get .*"harbor" in namespace team-a.*resourceNames: \[harbor\], verbs: \[get\]\}\]$/,
      );
      expect(registry.requests).to.deep.equal([]);
      cluster.rights.add("team-a/other get team-a/harbor");
      await eventually(
        async () => (await cluster.ask({ method: "HEAD", path, ns, token: other })).status === 200,
        () => "the right does not help",
      );
    });

    it("a registry that the operator does not list", async () => {
      const refused = await cluster.ask({ path, ns: "registry.test" });
      expect(refused.status).to.equal(403);
      expect(refused.phrase).to.equal("images of registry.test are not pulled through this proxy");
      expect(refused.headers).not.to.have.property("www-authenticate");
      const known = await cluster.ask({ path, ns: "registry.test", token: builder });
      expect(known.status).to.equal(403);
    });

    it("plain HTTP, before it asks for a token", async () => {
      const refused = await cluster.ask({ path, ns, scheme: "http" });
      expect(refused.status).to.equal(403);
      expect(refused.phrase).to.contain("pulled by https");
      expect(refused.headers).not.to.have.property("www-authenticate");
    });

    for (const [method, target] of [
      ["PUT", "app/web/manifests/2"],
      ["DELETE", "app/web/manifests/1"],
      ["POST", "app/web/blobs/uploads/"],
      ["GET", "app/web/tags/list"],
      ["GET", "_catalog"],
      ["GET", `app/web/referrers/sha256:${"0".repeat(64)}`],
    ] as const) {
      it(`${method} ${target}`, async () => {
        const refused = await cluster.ask({ method, path: target, ns, token: builder });
        expect(refused.status).to.equal(405);
        expect(refused.phrase).to.contain("pulls of manifests and blobs alone");
        expect(registry.requests).to.deep.equal([]);
      });
    }

    for (const [what, query] of [
      ["two registries", "ns=a.example.com&ns=b.example.com"],
      ["a path", "ns=harbor.example.com/path"],
      ["a user", "ns=user@harbor.example.com"],
      ["nothing", "ns="],
      ["two registries, one of them encoded", "ns=a.example.com&n%73=b.example.com"],
    ] as const) {
      it(`a parameter that names ${what}`, async () => {
        const refused = await cluster.ask({ path, ns, query, token: builder });
        expect(refused.status).to.equal(400);
        expect(errorIn(refused).message).to.contain("ns is not the host of one registry");
      });
    }

    it("with a line of ASCII, whatever a document says", async () => {
      const name = `ü\r\nSet-Cookie: a${"é".repeat(2_000)}`;
      await cluster.connect("odd", "https://odd.example.com", {
        spec: { auth: { name, secretRef: { name: "odd" } } },
      });
      cluster.rights.add("team-a/builder get team-a/odd");
      const refused = await cluster.ask({ path, ns: "odd.example.com", token: builder });
      expect(refused.status).to.equal(403);
      expect(refused.phrase).to.match(/^[\x20-\x7e]{50,512}$/);
      expect(refused.phrase).to.contain("team-a/odd can't be used");
      expect(refused.headers).not.to.have.property("set-cookie");
    });

    it("what the rules of the connector don't allow", async () => {
      const rules = JSON.stringify([{ verbs: ["pull"], repositories: ["base/**"] }]);
      await cluster.connect("ruled", registry.url, {
        namespace: "team-ruled",
        ca: registry.ca,
        spec: { params: [{ name: "rules", value: rules }] },
      });
      cluster.rights.add("team-ruled/builder get team-ruled/ruled");
      const token = cluster.tokenOf("team-ruled/builder");
      const refused = await cluster.ask({ path, ns, token });
      expect(refused.status).to.equal(403);
      expect(refused.phrase).to.contain("the rules of the connector team-ruled/ruled");
      expect(registry.requests).to.deep.equal([]);
    });
  });

  describe("says 503", () => {
    it("while the API server is away", async () => {
      const unknown = cluster.tokenOf("team-a/unknown");
      await cluster.api.goAway();
      try {
        const answer = await cluster.ask({ path, ns, token: unknown });
        expect(answer.status).to.equal(503);
        expect(answer.phrase).to.contain("API server");
        expect((await cluster.ask({ path, ns, token: builder })).status).to.equal(200);
      } finally {
        await cluster.api.comeBack();
      }
    });
  });

  describe("and tokens", () => {
    const reverse = (authorization: string, target: string): ReturnType<typeof plainRequest> =>
      plainRequest(`http://${cluster.proxy.http}/`, { target, headers: { authorization } });

    it("takes no token of a volume", async () => {
      const volume = cluster.tokenOf("team-a/builder", { audiences: [volumesAudience] });
      const refused = await cluster.ask({ path, ns, token: volume });
      expect(refused.status).to.equal(401);
      const target = "/v2/namespaces/team-a/connectors/harbor/app/web/manifests/1";
      const allowed = await reverse(basicAuth(volume.token), target);
      expect(allowed.status).to.equal(200);
    });

    it("has tokens that no other entry takes", async () => {
      const authorization = basicAuth(builder.token);
      const prefix = "/v2/namespaces/team-a/connectors/harbor/";
      for (const target of ["/v2/", prefix, `${prefix}${path}`, `${prefix}${path}?ns=${ns}`]) {
        expect((await reverse(authorization, target)).status, target).to.equal(401);
      }
      const credential = basicAuth(builder.token, "team-a/harbor");
      const connection = await askConnect(cluster.proxy, { to: ns, credential });
      connection.stop();
      expect(connection.status).to.equal(407);
    });

    it("takes none that is for both entries, and nor does the other one", async () => {
      const audiences = [imagesAudience, volumesAudience];
      const both = cluster.tokenOf("team-a/builder", { audiences });
      expect((await cluster.ask({ path, ns, token: both })).status).to.equal(401);
      expect((await reverse(basicAuth(both.token), "/v2/")).status).to.equal(401);
    });

    const foreign: readonly (readonly [string, string])[] = [
      ["a password", "hunter2-of-the-pull-secret"],
      ["a token of another issuer", jwt({ aud: "hunter2-of-the-pull-secret", sub: "bob" })],
      ["a token for the API server", jwt({ aud: ["https://hunter2-of-the-pull-secret"] })],
    ];
    for (const [what, password] of foreign) {
      for (const authorization of [
        basicAuth(password, "bob-of-the-pull-secret"),
        `Bearer ${password}`,
      ]) {
        const scheme = authorization.split(" ")[0];
        it(`refuses ${what} (${scheme}) of a pull Secret, and shows it to nobody`, async () => {
          cluster.reports.length = 0;
          const asked = cluster.api.requests.length;
          const refused = await cluster.ask({ path, ns, authorization });
          expect(refused.status).to.equal(401);
          expect(refused.headers["www-authenticate"]).to.match(/^Basic /);
          await eventually(
            () => cluster.reports.length > 0,
            () => "there is no report",
          );
          const shown = [
            cluster.proxy.log(),
            JSON.stringify(cluster.reports),
            refused.phrase,
            JSON.stringify(refused.headers),
            refused.body.toString(),
          ].join("\n");
          expect(shown).not.to.contain("of-the-pull-secret").and.not.contain(password);
          // The watch of Connectors may begin just now; nothing else is asked of the API server.
          const heard = cluster.api.requests.slice(asked).filter(({ path }) => !isOfWatch(path));
          expect(heard).to.deep.equal([]);
          expect(registry.requests).to.deep.equal([]);
        });
      }
    }
  });

  it("leaves requests to whom they name: a connector's path, or its host", async () => {
    const volume = cluster.tokenOf("team-a/builder", { audiences: [volumesAudience] });
    const byPath = await cluster.ask({
      path: `namespaces/team-a/connectors/harbor/${path}`,
      ns: unlisted,
      token: volume,
    });
    expect(byPath.status).to.equal(200);
    const host = "c-harbor.team-a.svc.cluster.local";
    const byHost = await cluster.ask({ path, ns: unlisted, token: volume, host });
    expect(byHost.status).to.equal(200);
    expect(registry.requests.filter(({ url }) => url.includes("ns="))).to.deep.equal([]);
  });
});
