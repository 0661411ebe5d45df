import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { Readable } from "node:stream";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../../src/certificate-authority.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { noise } from "../../support/oci-image.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../../support/plain-request.ts";
import { openRaw, statusesIn } from "../../support/raw-request.ts";
import { errorIn } from "../test-client.ts";
import { startTestProxy, type TestProxy, type TestProxyOptions } from "../test-proxy.ts";
import { connectTlsInside, proxyAuth } from "./connect-client.ts";

/** A host that requests are passed on to, and the connections that it has. */
interface Origin {
  /** `other.test:34567` */
  readonly host: string;
  readonly open: Set<Socket>;
  /** Which connection a request came on, by their order; the first is 1. */
  readonly cameOn: number[];
}

describe("connections to hosts that requests are passed on to", function () {
  this.timeout(20_000);
  const resources = cleanup();
  /** Where other.test is. */
  let addresses: string[];
  let proxy: TestProxy;

  beforeEach(async () => {
    addresses = ["127.0.0.1"];
    proxy = await start();
  });
  afterEach(resources.stop);

  async function start(options: TestProxyOptions = {}): Promise<TestProxy> {
    const started = resources.add(
      await startTestProxy({
        tunnels: {
          any: false,
          hosts: [
            { host: "other.test", port: undefined },
            { host: "namesake.test", port: undefined },
          ],
          domains: [],
          networks: [],
          neverNetworks: [],
        },
        lookup: (_name, _options, callback) =>
          callback(
            null,
            addresses.map((address) => ({ address, family: 4 })),
          ),
        ...options,
      }),
    );
    started.connect("harbor", "https://harbor.test");
    return started;
  }

  /** A volume of its own. */
  const subject = (): string => proxyAuth(proxy.token("harbor"), "harbor");

  function follow(server: Server): Pick<Origin, "open" | "cameOn"> {
    const open = new Set<Socket>();
    const numbers = new Map<Socket, number>();
    const cameOn: number[] = [];
    const isTls = "setSecureContext" in server;
    server.on(isTls ? "secureConnection" : "connection", (socket: Socket) => {
      numbers.set(socket, numbers.size + 1);
      open.add(socket);
      socket.on("error", () => undefined).once("close", () => open.delete(socket));
    });
    server.prependListener("request", ({ socket }) => cameOn.push(numbers.get(socket) ?? 0));
    resources.defer(() => {
      for (const socket of open) socket.destroy();
      server.close();
    });
    return { open, cameOn };
  }

  async function startOrigin(
    listener: RequestListener = (_request, response) =>
      void response.writeHead(200, { "content-length": "5" }).end("hello"),
  ): Promise<Origin> {
    const server = createServer({ keepAliveTimeout: 0 }, listener);
    const followed = follow(server);
    server.listen(0, "0.0.0.0");
    await once(server, "listening");
    return { ...followed, host: `other.test:${(server.address() as AddressInfo).port}` };
  }

  /**
   * A host that answers what it is told, or cuts the connection.
   * @param answers what is said to the nth request, of all connections; undefined cuts the connection
   */
  async function startRawOrigin(
    answers: readonly (string | undefined)[],
  ): Promise<Pick<Origin, "host" | "open"> & { readonly heads: string[] }> {
    const open = new Set<Socket>();
    const heads: string[] = [];
    const server = createTcpServer((socket) => {
      open.add(socket);
      socket.on("error", () => undefined).once("close", () => open.delete(socket));
      socket.on("data", (chunk) => {
        // The body of a request comes behind its head, or with it.
        if (!/ HTTP\/1\.1\r\n/.test(chunk.toString("latin1"))) return;
        heads.push(chunk.toString("latin1"));
        const answer = answers[heads.length - 1];
        if (answer === undefined) socket.resetAndDestroy();
        else socket.write(answer, () => void (answer.includes("HTTP/1.0") && socket.end()));
      });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    resources.defer(() => {
      for (const socket of open) socket.destroy();
      server.close();
    });
    return { open, heads, host: `other.test:${(server.address() as AddressInfo).port}` };
  }
  const whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

  const ask = (
    host: string,
    credential: string,
    { headers, ...options }: PlainRequestOptions = {},
    via = proxy,
  ): Promise<PlainResponse> =>
    plainRequest(`http://${via.http}/`, {
      target: `http://${host}/`,
      ...options,
      headers: { "proxy-authorization": credential, ...headers },
    });
  async function hear(...asked: Parameters<typeof ask>): Promise<void> {
    const answer = await ask(...asked);
    expect({ status: answer.status, body: answer.body.toString() }).to.deep.equal({
      status: 200,
      body: asked[2]?.method === "HEAD" ? "" : "hello",
    });
  }

  it("are used again for the same subject, and for no other", async () => {
    const origin = await startOrigin();
    const [one, other] = [subject(), subject()];
    await hear(origin.host, one);
    await hear(origin.host, one, { method: "HEAD" });
    await hear(origin.host, one, { headers: { connection: "close" } });
    await hear(origin.host, other);
    await hear(origin.host, one);
    await hear(origin.host, other);
    expect(origin.cameOn).to.deep.equal([1, 1, 1, 2, 1, 2]);
  });

  it("are used again by the next token of the same subject", async () => {
    const origin = await startOrigin();
    const { identities } = proxy.surroundings;
    const [first, second] = [proxy.token("harbor"), proxy.token("harbor")];
    const identity = identities.get(first);
    if (identity !== undefined) identities.set(second, identity);
    await hear(origin.host, proxyAuth(first, "harbor"));
    identities.delete(first);
    await hear(origin.host, proxyAuth(second, "harbor"));
    expect(origin.cameOn).to.deep.equal([1, 1]);
    expect((await ask(origin.host, proxyAuth(first, "harbor"))).status).to.equal(407);
  });

  it("are not used once the name is at another address, nor where it may not be dialled any more", async () => {
    const origin = await startOrigin();
    const own = subject();
    await hear(origin.host, own);
    addresses = ["127.0.0.2"];
    await hear(origin.host, own);
    addresses = ["127.0.0.1"];
    await hear(origin.host, own);
    expect(origin.cameOn).to.deep.equal([1, 2, 1]);
    expect([...origin.open].map(({ localAddress }) => localAddress)).to.deep.equal([
      "127.0.0.1",
      "127.0.0.2",
    ]);
    addresses = ["169.254.169.254"];
    const refused = await ask(origin.host, own);
    expect(refused.status).to.equal(403);
    expect(errorIn(refused).message).to.include("169.254.169.254");
    expect(origin.cameOn).to.have.length(3);
  });

  it("are used whatever order DNS has told the same addresses in", async () => {
    const origin = await startOrigin();
    const own = subject();
    addresses = ["127.0.0.1", "127.0.0.2"];
    await hear(origin.host, own);
    addresses = ["127.0.0.2", "127.0.0.1"];
    await hear(origin.host, own);
    expect(origin.cameOn).to.deep.equal([1, 1]);
  });

  it("are not used for another name or another port at the same address", async () => {
    const [origin, beside] = [await startOrigin(), await startOrigin()];
    const own = subject();
    await hear(origin.host, own);
    await hear(beside.host, own);
    const port = origin.host.split(":")[1];
    await hear(`namesake.test:${port}`, own);
    await hear(origin.host, own);
    expect([origin.cameOn, beside.cameOn]).to.deep.equal([[1, 2, 1], [1]]);
  });

  it("carry chunked bodies both ways, and empty ones", async () => {
    const origin = await startOrigin((request, response) => {
      if (request.url === "/empty") response.writeHead(204).end();
      else request.pipe(response.writeHead(200));
    });
    const own = subject();
    const body = noise("chunked", 300_000);
    const sent = await ask(origin.host, own, { method: "POST", body: Readable.from([body]) });
    expect(sent.headers).to.include({ "transfer-encoding": "chunked" });
    expect(sent.body.equals(body)).to.equal(true);
    const target = `http://${origin.host}/empty`;
    expect((await ask(origin.host, own, { target })).status).to.equal(204);
    const chunked = await ask(origin.host, own);
    expect(chunked).to.include({ status: 200, complete: true });
    expect((await ask(origin.host, own, { target })).status).to.equal(204);
    expect(origin.cameOn).to.deep.equal([1, 2, 2, 2]);
  });

  it("are not kept where the server says that it closes them, or speaks HTTP/1.0", async () => {
    const closing = whole.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    const old = "HTTP/1.0 200 OK\r\n\r\nhello";
    const origin = await startRawOrigin([closing, closing, old, old, whole, whole]);
    const own = subject();
    for (let count = 0; count < 4; count++) {
      await hear(origin.host, own);
      await eventually(
        () => origin.open.size === 0,
        () => "the connection is still there",
      );
    }
    await hear(origin.host, own);
    await hear(origin.host, own);
    expect(origin.open.size).to.equal(1);
  });

  it("are not kept after an answer that was cut, or whose client has gone", async () => {
    const origin = await startOrigin((request, response) => {
      if (request.url === "/whole") return void response.end("hello");
      response.writeHead(200, { "content-length": "10" }).write("12345");
      if (request.url === "/cut") setTimeout(() => response.destroy(), 20);
    });
    const own = subject();
    const target = `http://${origin.host}/cut`;
    expect(await ask(origin.host, own, { target })).to.include({ status: 200, complete: false });
    const client = await openRaw({ port: Number(proxy.http.split(":")[1]) });
    client.send(
      `GET http://${origin.host}/stays HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${own}\r\n\r\n`,
    );
    await client.waitFor(/12345/);
    client.stop();
    await eventually(
      () => origin.open.size === 0,
      () => "a connection stays",
    );
    await hear(origin.host, own, { target: `http://${origin.host}/whole` });
    expect(origin.cameOn).to.deep.equal([1, 2, 3]);
  });

  describe("that the server closes between two requests", () => {
    for (const method of ["GET", "HEAD"]) {
      it(`cost ${method} nothing: it is sent once more, on a new one`, async () => {
        const answer = method === "HEAD" ? whole.replace("hello", "") : whole;
        const origin = await startRawOrigin([answer, undefined, answer, answer]);
        const own = subject();
        for (let count = 0; count < 2; count++) await hear(origin.host, own, { method });
        expect(origin.heads).to.have.length(3);
      });
    }

    it("are tried just once more, and new ones not at all", async () => {
      const origin = await startRawOrigin([undefined, whole, undefined, undefined, whole]);
      const own = subject();
      expect((await ask(origin.host, own)).status).to.equal(502);
      expect(origin.heads).to.have.length(1);
      await hear(origin.host, own);
      expect((await ask(origin.host, own)).status).to.equal(502);
      expect(origin.heads).to.have.length(4);
    });

    for (const [what, options] of [
      ["POST", { method: "POST", body: "x" }],
      ["POST without a body", { method: "POST", headers: { "content-length": "0" } }],
      ["DELETE", { method: "DELETE" }],
      ["GET with a body", { method: "GET", body: Readable.from(["x"]) }],
    ] as const) {
      it(`are none of ${what}, which takes a new one and is never sent again`, async () => {
        const headers = what === "GET with a body" ? { "transfer-encoding": "chunked" } : {};
        const origin = await startRawOrigin([whole, whole, undefined]);
        const own = subject();
        await hear(origin.host, own);
        await hear(origin.host, own);
        expect(origin.open.size).to.equal(1);
        const answer = await ask(origin.host, own, { headers, ...options });
        expect(answer.status).to.equal(502);
        expect(origin.heads).to.have.length(3);
        expect(origin.heads[2]).to.match(/\r\nconnection: close\r\n/i);
        expect(origin.open.size).to.equal(1);
      });
    }
  });

  describe("that wait", () => {
    /** Answers once so many requests are there. */
    async function startGathering(): Promise<Origin & { gather(count: number): void }> {
      let wanted = 1;
      let waiting: (() => void)[] = [];
      const origin = await startOrigin((_request, response) => {
        waiting.push(() => response.end("hello"));
        if (waiting.length < wanted) return;
        for (const answer of waiting) answer();
        waiting = [];
      });
      return {
        ...origin,
        gather(count) {
          wanted = count;
        },
      };
    }

    it("are so many at most, of each and of all, and nobody takes another's last one", async () => {
      const poolLimits = { maxIdle: 4, maxIdlePerSubject: 3, idleTimeoutMs: 60_000 };
      proxy = await start({ poolLimits });
      const origin = await startGathering();
      const askAtOnce = async (credential: string, count: number): Promise<void> => {
        origin.gather(count);
        await Promise.all(Array.from({ length: count }, () => hear(origin.host, credential)));
      };
      const expectOpen = (count: number): Promise<true> =>
        eventually(
          () => origin.open.size === count,
          () => `${origin.open.size} are open, not ${count}`,
        );
      const [one, other, third, fourth, late] = Array.from({ length: 5 }, subject);
      await askAtOnce(one ?? "", 5);
      await expectOpen(3);
      await askAtOnce(other ?? "", 5);
      await expectOpen(4);
      await askAtOnce(third ?? "", 1);
      await askAtOnce(fourth ?? "", 1);
      await askAtOnce(late ?? "", 5);
      await expectOpen(4);
      const before = Math.max(...origin.cameOn);
      for (const known of [one, other, third, fourth]) await askAtOnce(known ?? "", 1);
      expect(Math.max(...origin.cameOn), "a subject's last one was closed").to.equal(before);
      await askAtOnce(late ?? "", 1);
      expect(Math.max(...origin.cameOn)).to.equal(before + 1);
    });

    it("end after a while, or before the server says that it ends them", async () => {
      proxy = await start({
        poolLimits: { maxIdle: 4, maxIdlePerSubject: 4, idleTimeoutMs: 30 },
      });
      const origin = await startOrigin();
      await hear(origin.host, subject());
      await eventually(
        () => origin.open.size === 0,
        () => "it stays",
      );
      const soon = whole.replace("\r\n\r\n", "\r\nKeep-Alive: timeout=1\r\n\r\n");
      const raw = await startRawOrigin([soon]);
      await hear(raw.host, subject());
      await eventually(
        () => raw.open.size === 0,
        () => "it stays",
      );
    });

    it("end at once when the proxy stops, and those with a request on them after it", async () => {
      let finish = (): void => undefined;
      const origin = await startOrigin((request, response) => {
        if (request.url === "/slow") finish = () => void response.end("hello");
        else response.end("hello");
      });
      const own = subject();
      await hear(origin.host, own);
      await hear(origin.host, subject());
      const slow = hear(origin.host, own, { target: `http://${origin.host}/slow` });
      await eventually(
        () => origin.cameOn.length === 3,
        () => "the request is not there",
      );
      expect(origin.cameOn).to.deep.equal([1, 2, 1]);
      const stopped = proxy.stop(15_000);
      await eventually(
        () => origin.open.size === 1,
        () => `${origin.open.size} are open, not 1`,
      );
      finish();
      await slow;
      await stopped;
      await eventually(
        () => origin.open.size === 0,
        () => "one is left",
      );
    });
  });

  it("are kept inside of TLS, too, as long as the same certificates are trusted", async () => {
    const authority = await createAuthority("of the host", new Date());
    const issue = await createLeafIssuer(authority);
    const { certificate, privateKey } = await issue("other.test", new Date());
    const server = createTlsServer(
      { cert: certificate, key: privateKey, keepAliveTimeout: 0 },
      (_request, response) => void response.end("hello"),
    );
    const origin = follow(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const to = `other.test:${(server.address() as AddressInfo).port}`;
    const trust = (...caCertificates: readonly string[]): void =>
      void proxy.connect("harbor", `https://${to}`, { caCertificates });
    const [one, other] = [subject(), subject()];
    const statusFor = async (credential: string): Promise<number[]> => {
      const socket = await connectTlsInside(proxy, { to, credential });
      socket.write(`GET /charts HTTP/1.1\r\nHost: ${to}\r\nConnection: close\r\n\r\n`);
      return statusesIn(String(Buffer.concat(await socket.toArray())));
    };
    trust(authority.certificate);
    for (const credential of [one, one, other, one]) {
      expect(await statusFor(credential)).to.deep.equal([200]);
    }
    expect(origin.cameOn).to.deep.equal([1, 1, 2, 1]);
    trust((await createAuthority("of another", new Date())).certificate);
    expect(await statusFor(one)).to.deep.equal([502]);
    trust((await createAuthority("of another", new Date())).certificate, authority.certificate);
    expect(await statusFor(one)).to.deep.equal([200]);
    expect(origin.cameOn).to.deep.equal([1, 1, 2, 1, 3]);
  });
});
