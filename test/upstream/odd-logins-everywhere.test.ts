import { gzipSync } from "node:zlib";
import { expect } from "chai";
import type { Credential } from "../../src/connector/credential.ts";
import { createProbe, type ProbeResult } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { proxyAuth } from "../proxy/forward-mode/connect-client.ts";
import { clientOf, errorIn } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy, testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { answerTokenRequest } from "../support/fake-registry-auth.ts";
import { addImage } from "../support/fake-registry-content.ts";
import type { Exchange } from "../support/fake-registry-exchange.ts";
import { tokenEndpoint } from "../support/hostile-auth.ts";
import { type PlainResponse, plainRequest } from "../support/plain-request.ts";

const alice = { username: "alice", password: "secret-of-alice" };
const wrong = { username: "alice", password: "wrong-password" };

type Odd = (registry: FakeRegistry) => void;

/** Has what the token server says go out in another way. */
const answered =
  (write: (exchange: Exchange, status: number, body: string) => void): Odd =>
  (registry) => {
    registry.on("GET token", (exchange) => {
      const json: Exchange["json"] = (status, value) =>
        write(exchange, status, JSON.stringify(value));
      const fail: Exchange["fail"] = (status, code) => json(status, { errors: [{ code }] });
      return answerTokenRequest(registry.auth, { ...exchange, json, fail }, Date.now());
    });
  };

/** Writes a response by hand, since node:http would not. */
const raw =
  (head: (body: string) => readonly string[]): Parameters<typeof answered>[0] =>
  ({ response }, status, body) => {
    const lines = [`HTTP/1.1 ${status} X`, ...head(body), "Connection: close", "", body];
    response.socket?.end(lines.join("\r\n"));
  };

const challenged =
  (...headers: readonly string[]): Odd =>
  ({ auth }) => {
    const { challenge } = auth;
    auth.challenge = (wanted) => [...headers, challenge(wanted)].flat();
  };

const oddLogins: readonly (readonly [name: string, Odd])[] = [
  [
    "redirects requests for tokens",
    (registry) => {
      registry.on("GET /token", ({ rawQuery, query, send, next }) =>
        query.has("moved") ? next() : send(308, { Location: `/token?${rawQuery}&moved=1` }),
      );
    },
  ],
  [
    "compresses tokens",
    answered(({ send }, status, body) =>
      send(status, { "Content-Encoding": "gzip" }, gzipSync(body)),
    ),
  ],
  [
    "says the length of tokens twice",
    answered(raw(({ length }) => [`Content-Length: ${length}`, `Content-Length: ${length}`])),
  ],
  ["does not say the length of tokens", answered(raw(() => []))],
  [
    "never sends the body of a refusal",
    (registry) => {
      registry.on("GET token", async ({ response, next, ...exchange }) => {
        const isRight = exchange.request.headers.authorization === basic(alice);
        if (isRight) return next();
        response.writeHead(401, { "content-length": "100" }).flushHeaders();
        return undefined;
      });
    },
  ],
  [
    "has tokens of 20 KB",
    ({ auth }) => {
      const { answer } = auth;
      auth.answer = (given) => {
        const token = `${given.token}${"x".repeat(20_000)}`;
        auth.tokens.set(token, { ...given, token });
        return { ...answer(given), token };
      };
    },
  ],
  [
    "calls tokens access_token",
    ({ auth }) => {
      auth.answer = ({ token }) => ({ access_token: token });
    },
  ],
  ["sends its challenges in several headers", challenged('Custom text="never closed', "Negotiate")],
  ["offers a token68 before Bearer", challenged("Negotiate oYG2MIGzoAMKAQGhCwYJ==")],
  [
    "names its service in UTF-8",
    ({ auth }) => {
      auth.challenge = ({ realm }) =>
        Buffer.from(`Bearer realm="${realm}",service="Реестр"`).toString("latin1");
    },
  ],
  [
    "wants Basic in place of tokens",
    ({ auth }) => {
      auth.mode = "basic";
    },
  ],
];

const basic = ({ username, password }: Credential): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

describe("a login that is odd, wherever it is sent", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let now: number;

  beforeEach(async () => {
    now = Date.now();
    registry = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
    addImage(registry.repository("app"), "1");
    proxy = resources.add(await startTestProxy({ now: () => now }));
  });
  afterEach(resources.stop);

  const probe = (credential: Credential): Promise<ProbeResult> => {
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const secrets = { credential, caCertificates: [] };
    const { signal } = new AbortController();
    return createProbe(upstreams)(testConnector("harbor", registry.url), secrets, signal);
  };
  /** By the registry's own name, as clients send requests that use the proxy as their `http_proxy`. */
  const forwarded = (): Promise<PlainResponse> =>
    plainRequest(`http://${proxy.http}/`, {
      target: `${registry.url}/v2/app/tags/list`,
      headers: { "proxy-authorization": proxyAuth(proxy.token("harbor"), "harbor") },
    });
  const byPath = (): Promise<PlainResponse> => clientOf(proxy, "harbor")("GET", "app/tags/list");

  for (const [name, apply] of oddLogins) {
    it(`of a registry that ${name}`, async () => {
      apply(registry);
      expect((await probe(alice)).auth).to.include({ ok: true, reason: "Authenticated" });
      expect((await probe(wrong)).auth).to.include({ ok: false, reason: "AuthenticationFailed" });
      for (const ask of [forwarded, byPath]) {
        proxy.connect("harbor", registry.url, { credential: alice });
        expect((await ask()).status).to.equal(200);
        proxy.connect("harbor", registry.url, { credential: wrong });
        const refused = await ask();
        expect(refused.status).to.equal(403);
        expect(errorIn(refused).message).to.contain("refused the connector's login (401)");
        expect(refused.headers["retry-after"]).to.match(/^\d+$/);
      }
    });
  }

  for (const ask of [forwarded, byPath]) {
    it(`whose token server moved away from one that never answers (${ask.name})`, async () => {
      const other = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
      other.on("GET token", async ({ next }) => {
        await next();
        for (const [token, grant] of other.auth.tokens) registry.auth.tokens.set(token, grant);
      });
      const { challenge } = registry.auth;
      registry.auth.challenge = (wanted) => challenge({ ...wanted, realm: `${other.url}/token` });
      proxy.connect("harbor", registry.url, { credential: alice });
      other.auth.lifetime = 5;
      expect((await ask()).status).to.equal(200);
      now += 5_000;
      tokenEndpoint.hangs(other);
      registry.auth.challenge = challenge;
      expect((await ask()).status).to.equal(200);
    });
  }

  it("keeps the tokens that it has while the account is refused", async () => {
    addImage(registry.repository("other"), "1");
    proxy.connect("harbor", registry.url, { credential: alice });
    expect((await byPath()).status).to.equal(200);
    registry.auth.users.set("alice", "another");
    const other = await clientOf(proxy, "harbor")("GET", "other/tags/list");
    expect(other.status).to.equal(403);
    expect(other.headers["retry-after"]).to.equal("60");
    expect((await byPath()).status).to.equal(200);
    proxy.connect("harbor", registry.url, {
      credential: alice,
      renewed: { username: "alice", password: "another" },
    });
    expect((await clientOf(proxy, "harbor")("GET", "other/tags/list")).status).to.equal(200);
    expect((await byPath()).status).to.equal(200);
  });
});
