import { expect } from "chai";
import fc from "fast-check";
import { fetchToken } from "../../src/upstream/token-client.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { UpstreamError } from "../../src/upstream/upstream-error.ts";
import { testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import type { FuzzProperty } from "./property.ts";
import { startRecordingServer } from "./recording-server.ts";

interface TokenAnswer {
  readonly status: number;
  readonly body: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

const password = "secret-of-alice";

/** Whatever a token server answers: it is a token that a header can carry, or an error that shows nothing of it. */
export const tokenResponses: FuzzProperty = {
  name: "token-responses",
  async start() {
    const resources = cleanup();
    let answer: TokenAnswer = { status: 200, body: Buffer.alloc(0), headers: {} };
    const server = resources.add(
      await startRecordingServer((_request, response) => {
        response.writeHead(answer.status, answer.headers).end(answer.body);
      }),
    );
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const none = { credential: undefined, caCertificates: [] };
    const { send } = upstreams.of(testConnector("harbor", `http://${server.host}`), none);
    const wanted = {
      realm: new URL(`http://${server.host}/token?fixed=1`),
      service: "registry",
      scopes: ["repository:own/app:pull"],
      credential: { username: "alice", password },
      send,
    };
    const run = async (given: TokenAnswer): Promise<void> => {
      answer = given;
      try {
        const { value, lifetimeSeconds } = await fetchToken(wanted);
        expect(given.status).to.equal(200);
        expect(value).to.match(/^[\x21-\x7e]+$/);
        expect(lifetimeSeconds).to.be.above(0);
      } catch (error) {
        if (!(error instanceof UpstreamError)) throw error;
        expect(error.message + error.detail)
          .to.not.contain(password)
          .and.not.contain("t0k3n");
      }
      for (const { url } of server.arrived.splice(0)) expect(url).to.match(/^\/token\?fixed=1&/);
    };
    return {
      inputsPerRun: 1,
      stop: resources.stop,
      check: (parameters) => fc.assert(fc.asyncProperty(answers, run), parameters),
    };
  },
};

const token = fc.oneof(
  fc.constantFrom("t0k3n", "t0k3n\r\nX: y", "t0k3n ", "", "t0k3n\0", "t0k3né", "__proto__"),
  fc.jsonValue(),
);
const lifetime = fc.oneof(
  fc.constantFrom<unknown>(300, "300", 0, -1, 1e308, 1e-308, null, "3e2x", [300], { value: 300 }),
  fc.jsonValue(),
);
const json = fc
  .record(
    {
      token,
      access_token: token,
      expires_in: lifetime,
      issued_at: fc.oneof(fc.constant("2026-01-01T00:00:00Z"), fc.jsonValue()),
      refresh_token: token,
    },
    { requiredKeys: [] },
  )
  .map((value) => JSON.stringify(value));
const body = fc.oneof(
  { weight: 6, arbitrary: json.map((text) => Buffer.from(text)) },
  { weight: 1, arbitrary: fc.jsonValue().map((value) => Buffer.from(JSON.stringify(value))) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      Buffer.from('{"token":"t0k3n"'),
      Buffer.from('\ufeff{"token":"t0k3n"}'),
      Buffer.from(`{"token":"${"t0k3n".repeat(40_000)}"}`),
      Buffer.from('{"__proto__":{"token":"t0k3n"}}'),
      Buffer.from('{"token":"t0k3n","token":5}'),
      Buffer.from('{"expires_in":1e999,"token":"t0k3n"}'),
      Buffer.from("[".repeat(50_000)),
    ),
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes)) },
);
const answers: fc.Arbitrary<TokenAnswer> = fc.record({
  status: fc.oneof(
    { weight: 6, arbitrary: fc.constant(200) },
    fc.constantFrom(201, 204, 302, 307, 400, 401, 403, 404, 418, 429, 500, 503),
  ),
  body,
  headers: fc.constantFrom<Record<string, string>>(
    {},
    { location: "http://127.0.0.1:1/" },
    { location: "/token?fixed=1&again=1" },
    { location: "http://[/" },
    { "content-type": "text/html" },
    { "content-encoding": "gzip" },
    { "www-authenticate": 'Bearer realm="http://127.0.0.1:1/"' },
    { "set-cookie": "a=b" },
  ),
});
