import { AsyncLocalStorage } from "node:async_hooks";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { plainRequest } from "../support/plain-request.ts";
import { askConnect, proxyAuth } from "./forward-mode/connect-client.ts";
import { basicAuth } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

describe("what the platform runs around each request", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const current = new AsyncLocalStorage<number>();
  let requests: number;
  /** Which request each question to the platform belongs to. */
  let asked: (readonly [question: string, request: number | undefined])[];
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let token: string;

  beforeEach(async () => {
    requests = 0;
    asked = [];
    registry = resources.add(await startFakeRegistry({ auth: "bearer", hostname: "harbor.test" }));
    addImage(registry.repository("app"), "1");
    const surroundings = resources.add(await startTestProxy());
    const credential = { username: "alice", password: "secret-of-alice" };
    const connector = surroundings.connect("harbor", registry.url, { credential });
    token = surroundings.token("harbor");
    const note = (question: string): void => {
      asked.push([question, current.getStore()]);
    };
    const identity = surroundings.surroundings.identities.get(token);
    if (identity === undefined) throw new Error("the token is unknown");
    proxy = resources.add(
      await startTestProxy({
        aroundRequest: (run) => current.run(++requests, run),
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
        async verifyToken() {
          note("token");
          return { ok: true, value: identity };
        },
        async mayUse() {
          note("access");
          return { ok: true, value: undefined };
        },
        findConnector: async () => ({ state: "found", connector }),
        async readUpstreamSecrets() {
          note("secrets");
          return { ok: true, value: { credential, caCertificates: [] } };
        },
      }),
    );
  });
  afterEach(resources.stop);

  it("holds all questions of a pull, one after the other on a connection", async () => {
    const target = "/v2/namespaces/team-a/connectors/harbor/app/manifests/1";
    const headers = { authorization: basicAuth(token) };
    for (const request of [1, 2]) {
      const { status } = await plainRequest(`http://${proxy.http}/`, { target, headers });
      expect(status).to.equal(200);
      const own = asked.filter(([, of]) => of === request).map(([question]) => question);
      expect(own).to.deep.equal(["token", "access", "secrets"]);
    }
    expect(asked).to.have.length(6);
  });

  it("holds those of a request in absolute form, and of a CONNECT", async () => {
    const { status } = await plainRequest(`http://${proxy.http}/`, {
      target: `${registry.url}/v2/app/manifests/1`,
      headers: { "proxy-authorization": proxyAuth(token, "harbor") },
    });
    expect(status).to.equal(200);
    expect(new Set(asked.map(([, request]) => request))).to.deep.equal(new Set([1]));
    asked = [];
    const to = new URL(registry.url).host;
    const connection = await askConnect(proxy, { to, credential: proxyAuth(token, "harbor") });
    connection.stop();
    expect(asked.length).to.be.greaterThan(0);
    expect(new Set(asked.map(([, request]) => request))).to.deep.equal(new Set([2]));
  });
});
