import { expect } from "chai";
import { cleanup } from "./cleanup.ts";
import { startFakeRegistry } from "./fake-registry.ts";
import { openRaw, rawRequest, statusesIn } from "./raw-request.ts";

describe("rawRequest()", () => {
  const resources = cleanup();
  after(resources.stop);

  it("sends what no client would, and shows every answer, over TLS too", async () => {
    const registry = resources.add(await startFakeRegistry({ tls: true }));
    const target = { port: registry.port, ca: registry.ca ?? "" };
    const both = await rawRequest(
      target,
      "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    expect(statusesIn(both.text)).to.deep.equal([400]);
    expect(both.closed).to.equal(true);
    const get = (path: string, more = ""): string =>
      `GET ${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`;
    const pipelined = await rawRequest(
      target,
      get("/v2/") + get("/v2/%61/tags/list") + get("http://x/v2/../", "Connection: close\r\n"),
    );
    expect(statusesIn(pipelined.text)).to.deep.equal([200, 404, 404]);
    expect(registry.requests.map(({ url }) => url)).to.deep.equal([
      "/v2/",
      "/v2/%61/tags/list",
      "http://x/v2/../",
    ]);
  });

  it("waits for the word to go on", async () => {
    const registry = resources.add(await startFakeRegistry());
    registry.on("POST uploads", async ({ body, json }) => json(200, String(await body())));
    const connection = resources.add(await openRaw({ port: registry.port }));
    const head = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n";
    connection.send(`${head}Expect: 100-continue\r\n\r\n`);
    await connection.waitFor(/100 Continue\r\n\r\n$/);
    connection.send("body");
    const text = await connection.waitFor(/"body"$/);
    expect(statusesIn(text)).to.deep.equal([100, 200]);
  });
});
