import { hash } from "node:crypto";
import { expect } from "chai";
import fc from "fast-check";
import { proxyAuth } from "../proxy/forward-mode/connect-client.ts";
import { basicAuth, clientOf } from "../proxy/test-client.ts";
import { startTestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { plainRequest } from "../support/plain-request.ts";
import type { FuzzProperty } from "./property.ts";
import { startRecordingServer } from "./recording-server.ts";

const own = basicAuth("secret-of-alice", "alice");
const body = "foreign";
const digest = `sha256:${hash("sha256", body)}`;

/**
 * Whatever a registry names as the place to go on: the credential goes nowhere else, and clients are never sent away, but
 * by the forward proxy, where the connector says so, and then to another host and with nobody's login.
 */
export const locations: FuzzProperty = {
  name: "locations",
  async start() {
    const resources = cleanup();
    let location = "";
    const foreign = resources.add(
      await startRecordingServer((_request, response) => response.end(body)),
    );
    const upstream = resources.add(
      await startRecordingServer(({ method, headers, url }, response) => {
        if (headers.authorization === undefined) {
          response.writeHead(401, { "www-authenticate": "Basic realm=x" }).end();
        } else if (method === "POST") response.writeHead(202, { location }).end();
        else if (method === "PATCH") response.writeHead(202, { location: url }).end();
        else response.writeHead(307, { location }).end();
      }),
    );
    const proxy = resources.add(
      await startTestProxy({
        lookup: (_hostname, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
    const port = upstream.host.split(":")[1];
    const origin = `http://registry.test:${port}`;
    const credential = { username: "alice", password: "secret-of-alice" };
    const params = [{ name: "allowedRedirectHosts", value: "foreign.test,127.0.0.1" }];
    proxy.connect("own", `${origin}/base`, { credential, params });
    proxy.connect("passing", `${origin}/base`, {
      credential,
      params: [...params, { name: "redirects", value: "pass" }],
    });
    const client = clientOf(proxy, "own");
    const forward = proxyAuth(proxy.token("passing"), "passing");

    const pullByForwardProxy = async (): Promise<void> => {
      const { status, headers } = await plainRequest(`http://${proxy.http}/`, {
        target: `${origin}/base/v2/own/app/blobs/${digest}`,
        headers: { "proxy-authorization": forward },
      });
      expect(status).to.be.oneOf([200, 307, 403, 502, 503]);
      expect(headers.location !== undefined).to.equal(status === 307);
      if (headers.location === undefined) return;
      const { username, password, origin: sentTo } = new URL(headers.location);
      expect(sentTo)
        .to.match(/^https?:/)
        .and.not.equal(origin);
      expect(username + password).to.equal("");
    };

    const run = async (value: string): Promise<void> => {
      location = value;
      const begun = await client("POST", "own/app/blobs/uploads/");
      const next = begun.headers.location;
      // Without a Location there is nothing to go on with, as with the registry itself.
      expect(begun.status).to.equal(next === undefined && value.trim() !== "" ? 502 : 202);
      if (next !== undefined) {
        const place = `(?:${client.origin})?${client.base}own/app/blobs/uploads/[\\w.-]+`;
        expect(next).to.match(new RegExp(`^${place}\\?_state=[\\w-]+$`));
        await client("PATCH", next, { body: "x" });
      }
      const pulled = await client("GET", `own/app/blobs/${digest}`);
      expect(pulled.status).to.be.oneOf([200, 403, 502, 503]);
      expect(pulled.headers.location).to.equal(undefined);
      await pullByForwardProxy();
      for (const { headers } of foreign.arrived.splice(0)) {
        expect(headers).to.not.have.any.keys("authorization", "cookie", "proxy-authorization");
        expect(JSON.stringify(headers)).to.not.contain(client.token);
      }
      for (const { headers } of upstream.arrived.splice(0)) {
        expect(headers.authorization).to.be.oneOf([undefined, own]);
        expect(headers.host).to.equal(`registry.test:${port}`);
      }
    };
    return {
      inputsPerRun: 1,
      stop: resources.stop,
      check: (parameters) =>
        fc.assert(
          fc.asyncProperty(
            locationValues(`registry.test:${port}`, foreign.host.split(":")[1] ?? ""),
            run,
          ),
          parameters,
        ),
    };
  },
};

/** Texts that Node can send as a header. */
function locationValues(own: string, foreignPort: string): fc.Arbitrary<string> {
  const scheme = fc.constantFrom(
    "http://",
    "https://",
    "//",
    "",
    "HTTP:",
    "file://",
    "http:\\\\",
    "ftp://",
  );
  const user = fc.oneof(
    { weight: 5, arbitrary: fc.constant("") },
    fc.constantFrom("alice:secret-of-alice@", `${own}@`, "@", `${own}%2f@`),
  );
  const host = fc.constantFrom(
    ...[
      own,
      own.toUpperCase(),
      `${own}.`,
      `foreign.test:${foreignPort}`,
      `127.0.0.1:${foreignPort}`,
    ],
    ...[`[::ffff:127.0.0.1]:${foreignPort}`, `2130706433:${foreignPort}`, `0x7f.1:${foreignPort}`],
    ...["169.254.169.254", "[fe80::1]", "localhost:1", "registry.test", "registry.test:0", "", "."],
    `x.registry.test:${foreignPort}`,
  );
  const path = fc.oneof(
    fc.constantFrom(
      ...["/base/v2/own/app/blobs/uploads/1", "/base/v2/other/blobs/uploads/1", "/elsewhere/1"],
      ...["/base/v2/../../x", "/base/v2/%2e%2e/x", "", "?x", "#x", "\\..\\x", "/base/v2/a b"],
    ),
    fc.string({ unit: fc.constantFrom(..."/.%25e\\?#&=;:@ ab\u00e9\t"), maxLength: 20 }),
  );
  const query = fc.constantFrom("", "?_state=1", "?_state=a%3D%3D&b", "#fragment", "?a?b#c");
  return fc.oneof(
    {
      weight: 5,
      arbitrary: fc.tuple(scheme, user, host, path, query).map((parts) => parts.join("")),
    },
    fc.string({ unit: fc.constantFrom(..."htps:/.@[]%#?\\0123 "), maxLength: 30 }),
  );
}
