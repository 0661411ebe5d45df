import { createHash } from "node:crypto";
import { once } from "node:events";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { neverAnswer } from "../../support/hostile-answers.ts";
import { breakChunks, resetDownloads, truncateBlobs } from "../../support/hostile-downloads.ts";
import { noise } from "../../support/oci-image.ts";
import { openRaw } from "../../support/raw-request.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const bodyTimeoutMs = 300;

describe("the body of a response that comes from a registry", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let secure: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  const blob = noise("blob", 3_000_000);
  let path: string;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    secure = resources.add(await startFakeRegistry({ tls: true }));
    proxy = resources.add(await startTestProxy({ bodyTimeoutMs, retryDelaysMs: [] }));
    proxy.connect("harbor", registry.url);
    proxy.connect("secure", secure.url, { caCertificates: [secure.ca ?? ""] });
    client = clientOf(proxy, "harbor");
    addBlob(secure.repository("app"), blob);
    path = `app/blobs/${addBlob(registry.repository("app"), blob)}`;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const port = (): number => Number(proxy.http.split(":")[1]);
  const head = (target = path): string =>
    `GET ${client.base}${target} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\n\r\n`;

  for (const [name, scheme] of [
    ["harbor", "http"],
    ["harbor", "https"],
    ["secure", "http"],
    ["secure", "https"],
  ] as const) {
    it(`arrives whole from ${name} over ${scheme}`, async () => {
      const answer = await clientOf(proxy, name, { scheme })("GET", path);
      expect(answer.complete).to.equal(true);
      expect(answer.body.equals(blob)).to.equal(true);
    });
  }

  describe("and is cut", () => {
    const cuts: readonly (readonly [string, typeof truncateBlobs])[] = [
      ["before its Content-Length", truncateBlobs],
      ["without its last chunk", breakChunks],
      ["by a reset", resetDownloads],
    ];
    for (const [name, cut] of cuts) {
      for (const scheme of ["http", "https"] as const) {
        it(`${name}, never looks whole (${scheme})`, async () => {
          undo.defer(cut(registry, 1_000_000));
          const answer = await clientOf(proxy, "harbor", { scheme })("GET", path);
          expect(answer.status).to.equal(200);
          expect(answer.complete).to.equal(false);
          expect(answer.body.length).to.be.below(blob.length);
          expect(blob.subarray(0, answer.body.length).equals(answer.body)).to.equal(true);
        });
      }
    }

    it("without its last chunk, has none for the client either", async () => {
      undo.defer(breakChunks(registry, 1_000_000));
      const connection = undo.add(await openRaw({ port: port() }));
      connection.send(head());
      await connection.closed;
      expect(connection.received()).to.match(/\r\ntransfer-encoding: chunked\r\n/i);
      expect(connection.received().endsWith("\r\n0\r\n\r\n")).to.equal(false);
    });

    it("without its last chunk, never looks whole to HTTP/1.0, which knows no chunks", async () => {
      for (const isCut of [false, true]) {
        if (isCut) undo.defer(breakChunks(registry, 1_000_000));
        const socket = connect(port(), "127.0.0.1").resume();
        undo.defer(() => socket.destroy());
        socket.write(head().replace("HTTP/1.1", "HTTP/1.0"));
        const [error] = await Promise.race([once(socket, "end"), once(socket, "error")]).catch(
          (reason: Error) => [reason],
        );
        expect(error instanceof Error).to.equal(isCut);
      }
    });

    it("at its very beginning, is an error, since nothing has gone out", async () => {
      undo.defer(truncateBlobs(registry, 0));
      const answer = await client("GET", path);
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.contain("ended early");
    });

    it("since it stops before it begins, is an error", async () => {
      undo.defer(neverAnswer(registry, "GET blob", { bytes: 1000 }));
      const answer = await client("GET", path);
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.contain("ended early");
    });

    it("is logged, with the reason", () => {
      expect(proxy.log()).to.contain("response ended early");
      expect(proxy.log()).to.not.contain("unexpected");
    });
  });

  it("ends at the registry at once when the client goes away", async () => {
    let request: IncomingMessage | undefined;
    undo.defer(
      registry.on("GET blob", (exchange) => {
        request = exchange.request;
        const { response } = exchange;
        response.writeHead(200, { "Content-Length": 1_000_000_000 });
        const fill = (): void => {
          while (response.write(blob));
        };
        response.on("drain", fill);
        fill();
      }),
    );
    for (const end of ["reset", "stop"] as const) {
      const connection = await openRaw({ port: port() });
      connection.send(head());
      await connection.waitFor(/\r\n\r\n/);
      connection[end]();
      await eventually(
        () => request?.socket.destroyed,
        () => "the registry still sends",
      );
    }
  });

  it("is not waited for when the client goes away before its head", async () => {
    const sockets: IncomingMessage["socket"][] = [];
    undo.defer(registry.on("GET blob", ({ request }) => void sockets.push(request.socket)));
    const connection = await openRaw({ port: port() });
    connection.send(head());
    await eventually(
      () => sockets.length === 1,
      () => "nothing has arrived",
    );
    connection.stop();
    await eventually(
      () => sockets[0]?.destroyed,
      () => "the registry's connection is still open",
    );
  });

  it("is held back while the client is slower, however long that is", async () => {
    const size = 100 * blob.length;
    const hash = createHash("sha256");
    for (let time = 0; time < 100; time += 1) hash.update(blob);
    let sent = 0;
    undo.defer(
      registry.on("GET blob", ({ response }) => {
        response.writeHead(200, { "Content-Length": size });
        const fill = (): void => {
          while (sent < size) {
            const rest = blob.subarray(0, size - sent);
            sent += rest.length;
            if (!response.write(rest)) return;
          }
          response.end();
        };
        response.on("drain", fill);
        fill();
      }),
    );
    const socket = connect(port(), "127.0.0.1");
    undo.defer(() => socket.destroy());
    socket.pause();
    await once(socket, "connect");
    const { rss } = process.memoryUsage();
    socket.write(head(`app/blobs/sha256:${hash.digest("hex")}`));
    let before = -1;
    while (sent !== before) {
      before = sent;
      await sleep(bodyTimeoutMs * 2.5); // longer than a registry may pause
    }
    // What the kernel's buffers hold, at both connections. The registry's own are in this process too.
    expect(sent).to.be.below(60_000_000);
    expect(process.memoryUsage().rss - rss).to.be.below(100_000_000);
    let received = 0;
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received > size) socket.destroy();
    });
    socket.resume();
    await once(socket, "close");
    expect(received).to.be.above(size);
  });

  it("leaves nothing behind on a connection that is used again and again", async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    undo.defer(() => agent.destroy());
    const warnings: Error[] = [];
    const listen = (warning: Error): void => void warnings.push(warning);
    process.on("warning", listen);
    undo.defer(() => process.off("warning", listen));
    const ports = new Set<number | undefined>();
    for (let time = 0; time < 30; time++) {
      const request = httpRequest({
        agent,
        host: "127.0.0.1",
        port: port(),
        path: client.base + (time % 2 === 0 ? path : "app/blobs/sha256:0"),
        headers: { authorization: client.authorization },
      }).end();
      const [response] = (await once(request, "response")) as [IncomingMessage];
      ports.add(request.socket?.localPort);
      response.resume();
      await once(response, "end");
    }
    expect(ports.size).to.equal(1);
    expect(warnings.map(({ message }) => message)).to.deep.equal([]);
  });
});
