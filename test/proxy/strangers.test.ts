import { expect } from "chai";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createAccessReviewer } from "../../src/kube/may-use.ts";
import { createTokenReviewer } from "../../src/kube/verify-token.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { type PlainResponse, plainRequest } from "../support/plain-request.ts";
import { openRaw } from "../support/raw-request.ts";
import { clientOf } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const audience = "connectors-proxy";

/** Junk in the form of a token, of the right audience. */
const junk = (number: number): string =>
  ["{}", JSON.stringify({ aud: [audience], exp: Date.now() / 1000 + 600, number }), "junk"]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");

describe("strangers and tenants at the proxy, and the API server behind it", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let api: FakeApiServer;
  let proxy: TestProxy;
  let reviews: number;
  const tenant = junk(-1);

  beforeEach(async () => {
    api = resources.add(await startFakeApiServer());
    reviews = 0;
    api.intercept = ({ path, body }) => {
      if (path === "/openid/v1/jwks") return { status: 403 };
      reviews += 1;
      const { token } = (body as { spec: { token?: string } }).spec;
      if (!path.endsWith("/tokenreviews")) return { status: 201, body: { status: {} } };
      const user = { username: "system:serviceaccount:team-a:builder" };
      const good = { authenticated: true, audiences: [audience], user };
      return { status: 201, body: { status: token === tenant ? good : { error: "unknown" } } };
    };
    const client = createApiClient({ access: api.access });
    const findConnector = async () => ({ state: "missing", reason: "there is none" }) as const;
    proxy = resources.add(
      await startTestProxy({
        findConnector,
        verifyToken: createTokenReviewer({ client, audience, now: Date.now }),
        mayUse: createAccessReviewer({
          client,
          now: Date.now,
          separatePush: false,
          requireProxyVerb: false,
          defaultPermission: "none",
          findConnector,
        }),
      }),
    );
  });
  afterEach(resources.stop);

  const ask = (token: string): Promise<PlainResponse> =>
    plainRequest(`http://${proxy.http}/v2/`, { headers: { authorization: `Bearer ${token}` } });

  it("makes few connections for a flood of junk, says 503 beyond, and serves others meanwhile", async () => {
    expect((await ask(tenant)).status).to.equal(200);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    api.delay = () => released;
    const connection = resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
    const pipelined = Array.from(
      { length: 1_000 },
      (_, number) =>
        `GET /v2/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${junk(10_000 + number)}\r\n\r\n`,
    );
    connection.send(pipelined.join(""));
    const flood = Array.from({ length: 700 }, (_, number) => ask(junk(number)));
    const first = await Promise.race(flood);
    expect(first.status).to.equal(503);
    expect((await ask(tenant)).status).to.equal(200);
    expect(reviews).to.equal(1); // that of the tenant's token: the flood still waits
    release();
    const responses = await Promise.all(flood);
    const statuses = new Set(responses.map(({ status }) => status));
    expect(statuses).to.deep.equal(new Set([401, 503]));
    const refused = responses.find(({ status }) => status === 503);
    expect(refused?.headers["retry-after"]).to.equal("5");
    expect(api.mostConnections).to.be.at.most(10);
  });

  it("asks once for a tenant's requests for connectors that don't exist", async () => {
    const requests = Array.from({ length: 300 }, (_, number) =>
      clientOf(proxy, `made-up-${number}`, { token: tenant })("GET", "app/tags/list"),
    );
    const responses = await Promise.all(requests);
    expect(new Set(responses.map(({ status }) => status))).to.deep.equal(new Set([403]));
    expect(reviews).to.equal(2); // whose token it is, and whether they may get connectors there
    expect(api.mostConnections).to.be.at.most(4);
  });
});
