import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addImage } from "../../support/fake-registry-content.ts";
import { type MirrorCluster, type PodToken, startMirrorCluster } from "./mirror-cluster.ts";

describe("an image without a connector", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let open: FakeRegistry;
  let closed: FakeRegistry;
  let cluster: MirrorCluster;
  let token: PodToken;

  before(async () => {
    open = resources.add(await startFakeRegistry({ auth: "none", tls: true }));
    closed = resources.add(await startFakeRegistry({ auth: "basic", tls: true }));
    for (const { repository } of [open, closed]) addImage(repository("app/web"), "1");
    cluster = resources.add(
      await startMirrorCluster({
        imageHosts: [open.host, closed.host],
        withoutConnector: "anonymous",
      }),
    );
    const caCertificates = [open.ca ?? "", closed.ca ?? ""];
    const secrets = { credential: undefined, caCertificates };
    cluster.proxy.surroundings.secrets.set("", { current: secrets, renewed: secrets });
    token = cluster.tokenOf("team-a/builder");
  });
  after(resources.stop);

  const path = "app/web/manifests/1";

  it("is pulled without any credential, where the operator has it so", async () => {
    const answer = await cluster.ask({ path, ns: open.host, token });
    expect(answer.status).to.equal(200);
    const logins = open.requests.map(({ headers }) => headers.authorization);
    expect(new Set(logins)).to.deep.equal(new Set([undefined]));
    expect(cluster.reports.at(-1)).to.deep.include({
      image: `${open.host}/app/web:1`,
      ref: undefined,
      connector: undefined,
      decision: "allowed",
    });
  });

  it("is refused with what the registry says, and that there is no connector", async () => {
    const refused = await cluster.ask({ path, ns: closed.host, token });
    expect(refused.status).to.equal(403);
    expect(refused.phrase).to.equal(
      `the registry ${closed.url} answered 401 UNAUTHORIZED to a request without a login; ` +
        `no connector of team-a or kube-public is at ${closed.url} for app/web`,
    );
  });

  it("needs a token all the same, and a registry that the operator lists", async () => {
    expect((await cluster.ask({ path, ns: open.host })).status).to.equal(401);
    const unlisted = await cluster.ask({ path, ns: "127.0.0.1:1", token });
    expect(unlisted.status).to.equal(403);
  });

  it("is not pulled anonymously past a connector that may not be used", async () => {
    await cluster.connect("open", open.url, { ca: open.ca });
    open.requests.length = 0;
    const refused = await cluster.ask({ path, ns: open.host, token });
    expect(refused.status).to.equal(403);
    expect(refused.phrase).to.contain("allow system:serviceaccount:team-a:builder");
    expect(open.requests).to.deep.equal([]);
  });
});
