import { createHash, randomBytes } from "node:crypto";
import type { LookupAddress } from "node:dns";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../../src/certificate-authority.ts";
import { createBlindTunnels, writeAndFree } from "../../../src/proxy/forward-mode/blind-tunnels.ts";
import type { RequestReport } from "../../../src/proxy/request-report.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { noise } from "../../support/oci-image.ts";
import type { RawConnection } from "../../support/raw-request.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";
import { askConnect, connectTlsInside, proxyAuth } from "./connect-client.ts";

describe("a blind tunnel through the forward proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let proxy: TestProxy;
  let credential: string;
  let found: readonly LookupAddress[];
  let lookups: number;
  let reports: RequestReport[];

  beforeEach(async () => {
    found = [{ address: "127.0.0.1", family: 4 }];
    lookups = 0;
    reports = [];
    proxy = resources.add(
      await startTestProxy({
        tunnels: {
          any: false,
          hosts: [],
          domains: [],
          neverNetworks: [],
          networks: ["127.0.0.1/32", "127.0.0.2/32"],
        },
        lookup(_name, _options, callback) {
          lookups += 1;
          callback(null, [...found]);
        },
        observer: {
          requestStarted: () => undefined,
          requestEnded: (report) => void reports.push(report),
          tokenNeeded: () => undefined,
        },
      }),
    );
    proxy.connect("harbor", "https://harbor.test");
    credential = proxyAuth(proxy.token("harbor"), "harbor");
  });
  afterEach(resources.stop);

  /** A server, and each connection that it has taken. */
  async function serve(
    server: Server = createServer({ allowHalfOpen: true }),
    host = "127.0.0.1",
    port = 0,
  ): Promise<{ port: number; accepted: Socket[] }> {
    const accepted: Socket[] = [];
    server.on("connection", (socket: Socket) => {
      accepted.push(socket.on("error", () => undefined));
    });
    server.listen(port, host);
    await once(server, "listening");
    resources.defer(() => {
      for (const socket of accepted) socket.destroy();
      server.close();
    });
    return { port: (server.address() as AddressInfo).port, accepted };
  }
  async function open(port: number, early?: string): Promise<RawConnection> {
    const to = `other.test:${port}`;
    const connection = await askConnect(proxy, {
      to,
      credential,
      ...(early !== undefined && { early }),
    });
    expect(connection.status, connection.received()).to.equal(200);
    return resources.add(connection);
  }
  /** The other end of the only tunnel. */
  const remoteOf = ({ accepted }: { accepted: Socket[] }): Promise<Socket> =>
    eventually(
      () => accepted[0],
      () => "nobody has come",
    );
  const digest = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

  it("carries bytes both ways, untouched, however slow one side is", async () => {
    const sent = noise("there", 6_000_000);
    const server = await serve();
    const tunnel = await open(server.port, "early");
    const remote = await remoteOf(server);
    const arrived: Buffer[] = [];
    remote.on("data", (chunk: Buffer) => {
      arrived.push(chunk);
      if (arrived.length > 20) return;
      remote.pause();
      setTimeout(() => remote.resume(), 5);
    });
    tunnel.send(sent);
    remote.write(sent);
    await eventually(
      () => Buffer.concat(arrived).length === sent.length + 5,
      () => `${Buffer.concat(arrived).length} bytes have come`,
    );
    expect(Buffer.concat(arrived).subarray(0, 5).toString()).to.equal("early");
    expect(digest(Buffer.concat(arrived).subarray(5))).to.equal(digest(sent));
    const body = await eventually(
      () => {
        const text = tunnel.received();
        const bytes = Buffer.from(text.slice(text.indexOf("\r\n\r\n") + 4), "latin1");
        return bytes.length === sent.length ? bytes : undefined;
      },
      () => "not all has come back",
    );
    expect(digest(body)).to.equal(digest(sent));
  });

  it("ends at one side when the other one has ended, which may still answer", async () => {
    const server = await serve();
    const tunnel = await open(server.port);
    const remote = await remoteOf(server);
    const ended = once(remote.resume(), "end");
    tunnel.send("question");
    tunnel.end();
    await ended;
    remote.end("answer");
    await tunnel.waitFor(/answer$/);
    await tunnel.closed;
    await eventually(
      () => reports.length > 0,
      () => "there is no report",
    );
    expect(reports[0]).to.deep.include({
      method: "CONNECT",
      operation: "tunnel",
      decision: "allowed",
      status: 200,
      host: `other.test:${server.port}`,
      connector: undefined,
      bytesReceived: 8,
    });
    expect(reports[0]?.identity?.user).to.match(/^volume:/);
  });

  it("is cut at one side when it is cut at the other", async () => {
    const server = await serve();
    const one = await open(server.port);
    const remote = await remoteOf(server);
    const error = once(remote, "error").then(([reason]) => reason.code);
    one.reset();
    expect(await error).to.equal("ECONNRESET");

    const other = await open(server.port);
    const second = await eventually(
      () => server.accepted[1],
      () => "nobody has come",
    );
    second.resetAndDestroy();
    await other.closed;
  });

  it("carries TLS that the proxy can't read, with a certificate of the client", async () => {
    const authority = await createAuthority("of the client", new Date());
    const issue = await createLeafIssuer(authority);
    const [host, client] = [await issue("other.test", new Date()), await issue("me", new Date())];
    const tls = createTlsServer({
      cert: host.certificate,
      key: host.privateKey,
      ca: authority.certificate,
      requestCert: true,
      rejectUnauthorized: false,
    });
    tls.on("secureConnection", (socket: TLSSocket) => {
      socket.on("error", () => undefined);
      socket.end(`hello, ${socket.getPeerCertificate().subject.CN}`);
    });
    const { port } = await serve(tls);
    const secure = await connectTlsInside(
      proxy,
      { to: `other.test:${port}`, credential },
      { ca: authority.certificate, cert: client.certificate, key: client.privateKey },
    );
    expect(secure.getPeerCertificate().subject.CN).to.equal("other.test");
    expect(String(Buffer.concat(await secure.toArray()))).to.equal("hello, me");
  });

  it("carries a WebSocket", async () => {
    const http = createHttpServer();
    http.on("upgrade", (_request, socket: Socket) => {
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
      );
      socket.on("error", () => undefined).pipe(socket);
    });
    const { port } = await serve(http);
    const tunnel = await open(port);
    tunnel.send(
      "GET /chat HTTP/1.1\r\nHost: other.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    );
    await tunnel.waitFor(/ 101 .*\r\n\r\n$/s);
    const frame = "\x81\x85\x01\x02\x03\x04ignmn"; // "hello", masked
    tunnel.send(Buffer.from(frame, "latin1"));
    await tunnel.waitFor(/ignmn$/);
  });

  it("goes to just the address that was judged, whatever DNS says next", async () => {
    const judged = await serve(undefined, "127.0.0.2");
    const other = await serve(undefined, "127.0.0.1", judged.port);
    found = [{ address: "127.0.0.2", family: 4 }];
    const connecting = open(judged.port);
    await eventually(
      () => lookups > 0,
      () => "nothing was looked up",
    );
    found = [{ address: "127.0.0.1", family: 4 }];
    await connecting;
    expect({ lookups, other: other.accepted.length }).to.deep.equal({ lookups: 1, other: 0 });
    await remoteOf(judged);

    const third = await serve(undefined, "127.0.0.3", judged.port);
    found = ["127.0.0.3", "127.0.0.2"].map((address) => ({ address, family: 4 }));
    await open(judged.port);
    await sleep(50);
    expect(third.accepted).to.have.length(0);
    found = [{ address: "127.0.0.3", family: 4 }];
    const refused = await askConnect(proxy, { to: `other.test:${judged.port}`, credential });
    expect(refused.status).to.equal(403);
  });

  it("is none to a host that can't be reached, which is said", async () => {
    const { port } = await serve();
    const free = await new Promise<number>((resolve) => {
      const server = createServer().listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo;
        server.close(() => resolve(port));
      });
    });
    const refused = await askConnect(proxy, { to: `other.test:${free}`, credential });
    expect(refused.status).to.equal(502);
    await refused.closed;
    expect(refused.received()).to.include(`other.test:${free}`);
    expect(refused.received()).to.match(/nothing listens|refused/i);
    found = [];
    const unknown = await askConnect(proxy, { to: `other.test:${port}`, credential });
    expect(unknown.status).to.equal(502);
  });

  it("ends when the process does, and nothing passes any more", async () => {
    const [client, far] = [await serve(), await serve()];
    const [near, remote] = [client, far].map(({ port }) => connect(port, "127.0.0.1"));
    if (near === undefined || remote === undefined) throw new Error();
    const tunnels = createBlindTunnels(800);
    tunnels.join(
      near.on("error", () => undefined),
      remote,
    );
    const [one, other] = [await remoteOf(client), await remoteOf(far)];
    let text = "";
    one.on("data", (chunk) => {
      text += chunk;
    });
    tunnels.finish();
    for (let count = 0; count < 30; count++) {
      other.write("+");
      await sleep(50);
    }
    expect(text).to.match(/^\+{29,30}$/);
    await eventually(
      () => [one, other.resume()].every((end) => end.destroyed || end.readableEnded),
      () => "the tunnel is still there",
    );
  });
});

const chunkSize = 64 * 1024;

describe("writeAndFree()", () => {
  let server: Server;
  let sender: Socket;
  let received: Promise<Buffer>;

  beforeEach(async () => {
    server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    sender = connect((server.address() as AddressInfo).port, "127.0.0.1");
    const [receiver] = await once(server, "connection");
    received = buffer(receiver);
  });

  afterEach(async () => {
    sender.destroy();
    server.close();
    await once(server, "close");
  });

  it("frees chunks once they are out, and what arrives is what was written", async () => {
    const content = randomBytes(200 * chunkSize);
    const chunks = Array.from({ length: 200 }, (_, index) => {
      const chunk = Buffer.from(new ArrayBuffer(chunkSize));
      content.copy(chunk, 0, index * chunkSize);
      return chunk;
    });
    // All at once, so that most of them have to wait for their turn.
    for (const chunk of chunks) writeAndFree(sender, chunk);
    sender.end();
    expect((await received).equals(content)).to.equal(true);
    expect(chunks.filter(({ length }) => length > 0)).to.deep.equal([]);
  });

  it("leaves a buffer alone of which the chunk is but a part", async () => {
    const whole = Buffer.from(new ArrayBuffer(2 * chunkSize)).fill("x");
    writeAndFree(sender, whole.subarray(0, chunkSize));
    sender.end();
    expect((await received).length).to.equal(chunkSize);
    expect(whole.length).to.equal(2 * chunkSize);
  });

  it("leaves an empty buffer alone, since all who have one may share it", async () => {
    const empty = Buffer.alloc(0);
    writeAndFree(sender, empty);
    sender.end();
    await received;
    expect(empty.buffer).to.have.property("detached", false);
  });
});
