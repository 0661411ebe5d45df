import type { IncomingMessage, ServerResponse } from "node:http";
import { expect } from "chai";
import fc from "fast-check";
import { basicAuth, clientOf } from "../proxy/test-client.ts";
import { startTestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { statusesIn } from "../support/raw-request.ts";
import type { FuzzProperty } from "./property.ts";
import { startRecordingServer } from "./recording-server.ts";
import { requestBytes } from "./request-bytes.ts";
import { sendBytes } from "./send-bytes.ts";

const password = "secret-of-mallory";
const own = basicAuth(password, "mallory");
const others = basicAuth("secret-of-alice", "alice");
/** All at once, since one that is not whole is waited for. */
const requestsPerRun = 100;

/** A registry that has everything, and lets in whoever has an account. */
function answerAsRegistry(request: IncomingMessage, response: ServerResponse): void {
  const { method, url = "", headers } = request;
  if (headers.authorization === undefined) {
    response.writeHead(401, { "www-authenticate": "Basic realm=x" }).end();
  } else if (/\/blobs\/uploads\/[^/]*$/.test(url.split("?")[0] ?? "")) {
    const location = `${url.split("?")[0]?.replace(/[^/]*$/, "")}of-mine?_state=1`;
    response.writeHead(method === "PUT" ? 201 : 202, { location }).end();
  } else response.writeHead(method === "PUT" ? 201 : 200, { "content-length": "2" }).end("{}");
}

/** Requests of a tenant that may use one connector, and in it the repositories below `own`. */
export const hostileRequests: FuzzProperty = {
  name: "requests",
  async start() {
    const resources = cleanup();
    const upstream = resources.add(await startRecordingServer(answerAsRegistry));
    const foreign = resources.add(
      await startRecordingServer((_request, response) => response.end("foreign")),
    );
    const proxy = resources.add(
      await startTestProxy({
        bodyTimeoutMs: 1000,
        lookup: (_hostname, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
    const rules = '[{"verbs":["pull","push","delete"],"repositories":["own/**"]}]';
    proxy.connect("own", `http://${upstream.host}/base`, {
      credential: { username: "mallory", password },
      params: [{ name: "rules", value: rules }],
    });
    proxy.connect("victim", `http://${upstream.host}/victim`, {
      credential: { username: "alice", password: "secret-of-alice" },
    });
    const mallory = clientOf(proxy, "own");
    const sessions: string[] = [];
    for (const [client, path] of [
      [mallory, "own/app/blobs/uploads/"],
      [clientOf(proxy, "victim"), "private/app/blobs/uploads/"],
    ] as const) {
      const { headers } = await client("POST", path, { headers: { "content-length": "0" } });
      sessions.push(headers.location?.split("/").at(-1) ?? "");
    }
    const { token } = mallory;
    const [, port = ""] = proxy.http.split(":");
    const vocabulary = { token, foreign: foreign.host, upstream: upstream.host, sessions };

    upstream.arrived.length = 0;
    const counts = new Map<string, number>();
    const count = (what: string, more = 1): void => {
      counts.set(what, (counts.get(what) ?? 0) + more);
    };

    /** What must hold of every request that has arrived at the registry. */
    const judge = (request: IncomingMessage): void => {
      const { url = "", headers, rawHeaders } = request;
      const [path = "", query = ""] = url.split("?");
      const isPing = path === "/base/v2/";
      expect(path).to.match(/^\/base\/v2\/(own\/[A-Za-z0-9._~:@+=/-]+)?$/);
      expect(path).to.not.match(/\/\.{0,2}\/|\/\.{1,2}$/);
      expect(headers.authorization).to.be.oneOf(isPing ? [undefined, own] : [own]);
      expect(headers.host).to.equal(upstream.host);
      const mounts = request.method === "POST" ? query : "";
      for (const from of new URLSearchParams(mounts).getAll("from")) {
        expect(from).to.match(/^own\//);
      }
      const all = rawHeaders.join("\n");
      expect(all).to.not.match(/oci-inner|cookie|proxy-|forwarded|upgrade|trailer/i);
      expect(all).to.not.contain(token);
      const names = rawHeaders.filter((_, index) => index % 2 === 0);
      expect(names.filter((name) => /^(host|authorization)$/i.test(name))).to.have.length(
        isPing && headers.authorization === undefined ? 1 : 2,
      );
    };
    const run = async (requests: readonly string[]): Promise<void> => {
      const answers = await sendBytes(Number(port), requests);
      for (const answer of answers) {
        for (const status of statusesIn(answer)) count(`${status}`);
        if (answer === "") count("no answer");
      }
      const arrived = upstream.arrived.splice(0); // of the run before, too, where one is late
      count("at the registry", arrived.length);
      arrived.forEach(judge);
      expect(foreign.arrived.map(({ url }) => url)).to.deep.equal([]);
      for (const answer of answers) {
        expect(answer).to.not.contain(password).and.not.contain(own.slice("Basic ".length));
        expect(answer).to.not.contain(others.slice("Basic ".length));
      }
    };
    const batches = fc.array(requestBytes(vocabulary), {
      minLength: requestsPerRun,
      maxLength: requestsPerRun,
    });
    return {
      inputsPerRun: requestsPerRun,
      stop: resources.stop,
      summary: () =>
        [...counts]
          .toSorted()
          .map(([what, times]) => `${what}: ${times}`)
          .join(", "),
      async check(parameters) {
        await fc.assert(fc.asyncProperty(batches, run), parameters);
        // It goes on to serve others.
        expect((await mallory("GET", "own/app/tags/list")).status).to.equal(200);
      },
    };
  },
};
