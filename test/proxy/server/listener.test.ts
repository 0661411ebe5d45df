import { once } from "node:events";
import { connect } from "node:net";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type ConnectionOptions,
  checkServerIdentity as checkTlsIdentity,
  connect as connectTls,
  type PeerCertificate,
  type TLSSocket,
} from "node:tls";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { neverAnswer, sendHugeHeaders, startSilentServer } from "../../support/hostile-answers.ts";
import { tokenEndpoint } from "../../support/hostile-auth.ts";
import { noise } from "../../support/oci-image.ts";
import { openRaw, type RawConnection, rawRequest, statusesIn } from "../../support/raw-request.ts";
import { clientOf, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

describe("a listener of the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url);
    client = clientOf(proxy, "harbor");
  });
  afterEach(resources.stop);

  const port = (scheme: "http" | "https" = "http"): number => Number(proxy[scheme].split(":")[1]);
  const get = (path: string, close = false): string =>
    `GET ${client.base}${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\n` +
    `${close ? "Connection: close\r\n" : ""}\r\n`;

  it("answers requests in turn on one connection, and keeps those to the registry", async () => {
    registry.repository("app").tags.set("1", "x");
    const connection = resources.add(await openRaw({ port: port() }));
    for (let count = 1; count <= 6; count++) {
      connection.send(get("app/tags/list"));
      await connection.waitFor(new RegExp(`(HTTP/1.1 200 [^]*"tags":\\["1"\\]}[^]*){${count}}`));
    }
    const lists = registry.requests.filter(({ target }) => target.kind === "tags");
    expect(lists).to.have.length(6);
    // The first may come before the ping's connection is free.
    expect(new Set(registry.requests.map(({ remotePort }) => remotePort)).size).to.be.below(3);
  });

  it("answers pipelined requests in order", async () => {
    const first = addBlob(registry.repository("app"), noise("first", 100_000));
    const slow = registry.on("GET blob", async ({ next }) => {
      await sleep(50);
      await next();
    });
    const { text } = await rawRequest(
      { port: port() },
      get(`app/blobs/${first}`) + get("none/tags/list", true),
    );
    slow();
    expect(
      statusesIn(text.replaceAll(noise("first", 100_000).toString("latin1"), "")),
    ).to.deep.equal([200, 404]);
  });

  it("lets a head of 21 KB through, and one of 50 KB", async () => {
    for (const size of [21_000, 50_000]) {
      const undo = sendHugeHeaders(registry, size);
      const answer = await client("GET", "none/tags/list");
      undo();
      expect(answer.status).to.equal(404);
      expect(Buffer.byteLength(answer.rawHeaders.join(""))).to.be.above(size);
    }
  });

  it("says what is wrong with a head of more than 64 KiB", async () => {
    sendHugeHeaders(registry, 70_000);
    const answer = await client("GET", "none/tags/list");
    expect(answer.status).to.equal(503);
    expect(answer.body.toString()).to.contain("longer than 64 KiB");
  });

  const malformed: readonly (readonly [string, string, number])[] = [
    ["no HTTP", "hello\r\n\r\n", 400],
    ["no Host", "GET /v2/ HTTP/1.1\r\n\r\n", 400],
    ["two lengths", post("Content-Length: 1\r\nContent-Length: 2"), 400],
    ["a length and chunks", post("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400],
    ["a length that is none", post("Content-Length: 1x"), 400],
    ["an unknown coding", post("Transfer-Encoding: x"), 400],
    ["a header that is folded", post("X-A: b\r\n c"), 400],
    ["a space before the colon", post("Content-Length : 5"), 400],
    ["bare line feeds", "GET /v2/ HTTP/1.1\nHost: x\n\n", 400],
    ["a huge head", post(`X-A: ${"x".repeat(70_000)}`), 431],
  ];
  for (const [name, bytes, status] of malformed) {
    it(`answers ${status} to a request with ${name}`, async () => {
      const { text } = await rawRequest({ port: port() }, bytes);
      expect(statusesIn(text)).to.deep.equal([status]);
      if (name === "no Host") return; // Node answers that itself, with no word
      expect(text).to.match(/\r\n\r\n{"errors":\[{"code":"UNSUPPORTED",.*"detail":".*"}\]}$/);
      expect(registry.requests).to.deep.equal([]);
    });
  }

  function post(header: string): string {
    return `POST /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${header}\r\n\r\n`;
  }

  it("is no tunnel", async () => {
    const { text, closed } = await rawRequest(
      { port: port() },
      `CONNECT ${registry.host} HTTP/1.1\r\nHost: ${registry.host}\r\nProxy-Authorization: ${client.authorization}\r\n\r\n`,
    );
    expect(statusesIn(text)).to.not.include(200);
    expect(closed).to.equal(true);
    expect(registry.requests).to.deep.equal([]);
  });

  it("takes a request to upgrade for a plain one", async () => {
    const answer = await client("GET", "none/tags/list", {
      headers: { connection: "upgrade, http2-settings", upgrade: "h2c", "http2-settings": "" },
    });
    expect(answer.status).to.equal(404);
    expect(registry.requests.at(-1)?.headers).to.not.have.any.keys("upgrade", "http2-settings");
  });

  describe("over TLS", () => {
    const handshake = async (
      options: ConnectionOptions,
    ): Promise<{ certificate: PeerCertificate; socket: TLSSocket }> => {
      const ca = proxy.surroundings.authority.certificate;
      const socket = connectTls({ host: "127.0.0.1", port: port("https"), ca, ...options });
      resources.defer(() => socket.destroy());
      await once(socket, "secureConnect");
      return { certificate: socket.getPeerCertificate(), socket };
    };

    it("has a certificate for each name that it serves", async () => {
      for (const servername of ["localhost", "c-harbor.team-a.svc.cluster.local", "LOCALHOST"]) {
        const { certificate } = await handshake({ servername });
        expect(certificate.subjectaltname).to.equal(`DNS:${servername.toLowerCase()}`);
      }
    });

    it("has one for the address that it listens on, for clients that send no name", async () => {
      const { certificate } = await handshake({});
      expect(certificate.subjectaltname).to.equal("IP Address:127.0.0.1");
    });

    it("has one for all addresses by which it is reached, and another when these change", async () => {
      let addresses = ["10.96.0.7"];
      let changed = (): void => undefined;
      const certificateAddresses = {
        current: () => addresses,
        onChange(listener: () => void) {
          changed = listener;
          return () => undefined;
        },
      };
      const certificateName = "connectors-proxy.connectors-system.svc.cluster.local";
      proxy = resources.add(
        await startTestProxy({
          listen: [
            { scheme: "http", host: "127.0.0.1", port: 0 },
            { scheme: "https", host: "127.0.0.1", port: 0, certificateName, certificateAddresses },
          ],
        }),
      );
      const namesFor = async (address: string): Promise<string | undefined> => {
        const checkServerIdentity = (_: string, peer: PeerCertificate): Error | undefined =>
          checkTlsIdentity(address, peer);
        return (await handshake({ checkServerIdentity })).certificate.subjectaltname;
      };
      expect(await namesFor("10.96.0.7")).to.equal(`DNS:${certificateName}, IP Address:10.96.0.7`);
      addresses = ["10.96.0.8", "fd00::8"];
      changed();
      await eventually(
        () => namesFor("10.96.0.8").catch(() => undefined),
        () => "the certificate keeps the old address",
      );
      expect(await namesFor("fd00::8")).to.contain(certificateName);
    });

    it("has none for any other name", async () => {
      const error = await handshake({ servername: "registry-1.docker.io" }).then(
        () => undefined,
        (reason: Error & { code: string }) => reason.code,
      );
      expect(error).to.equal("ERR_TLS_CERT_ALTNAME_INVALID");
    });

    it("speaks HTTP/1.1 and no older TLS than 1.2", async () => {
      const { socket } = await handshake({ ALPNProtocols: ["h2", "http/1.1"] });
      expect(socket.alpnProtocol).to.equal("http/1.1");
      const old = await handshake({ maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" }).catch(
        (error: Error) => error,
      );
      expect(old).to.be.instanceOf(Error);
    });

    it("says what is wrong to a client that speaks plain HTTP", async () => {
      const { text, closed } = await rawRequest({ port: port("https") }, get("app/tags/list"));
      expect(closed).to.equal(true);
      expect(text).to.match(/^HTTP\/1.1 400 Bad Request\r\n/);
      expect(text).to.contain("this port expects TLS").and.contain("https://");
      expect(registry.requests).to.deep.equal([]);
    });

    it("answers TLS on the port for plain HTTP with HTTP, which Go's clients put into words", async () => {
      const socket = connect(port(), "127.0.0.1");
      resources.defer(() => socket.destroy());
      socket.write(Buffer.from("16030100050100000103", "hex"));
      const [answer] = await once(socket, "data");
      expect(String(answer)).to.match(/^HTTP\/1.1 400 Bad Request\r\n/);
    });

    it("goes on after connections that end in the handshake", async () => {
      for (let count = 0; count < 3; count++) {
        const socket = connect(port("https"), "127.0.0.1");
        await once(socket, "connect");
        socket.resetAndDestroy();
      }
      const secure = clientOf(proxy, "harbor", { scheme: "https" });
      expect((await secure("GET", "/v2/")).status).to.equal(200);
    });
  });

  describe("that stops", () => {
    const stopped = async (grace: number): Promise<number> => {
      const start = performance.now();
      await proxy.stop(grace);
      return performance.now() - start;
    };
    const open = async (scheme: "http" | "https"): Promise<RawConnection> => {
      const ca = proxy.surroundings.authority.certificate;
      const target = { port: port(scheme), ...(scheme === "https" && { ca }) };
      return resources.add(await openRaw(target));
    };
    const arrived = () =>
      eventually(
        () => registry.requests.some(({ target }) => target.kind !== "ping"),
        () => "nothing has arrived",
      );

    it("finishes an upload that is under way", async () => {
      const body = new PassThrough();
      const blob = noise("under way", 200_000);
      body.write(blob.subarray(0, 100_000));
      const begun = await client("POST", "app/blobs/uploads/");
      const pushing = client("PATCH", begun.headers.location ?? "", { body });
      await eventually(
        () => registry.requests.some(({ method }) => method === "PATCH"),
        () => "nothing has arrived",
      );
      const stopping = stopped(20_000);
      await sleep(100);
      body.end(blob.subarray(100_000));
      const pushed = await pushing;
      expect(pushed.status).to.equal(202);
      expect(pushed.headers.range).to.equal("0-199999");
      expect(await stopping).to.be.below(15_000);
    });

    for (const scheme of ["http", "https"] as const) {
      it(`finishes what is under way, and ends its connection (${scheme})`, async () => {
        const blob = noise("under way", 3_000_000);
        const digest = addBlob(registry.repository("app"), blob);
        registry.on("GET blob", async ({ next }) => {
          await sleep(300);
          await next();
        });
        const connection = await open(scheme);
        connection.send(get(`app/blobs/${digest}`));
        await arrived();
        const stopping = stopped(20_000);
        await connection.closed;
        expect(await stopping).to.be.below(15_000);
        expect(connection.received()).to.match(/^HTTP\/1.1 200 OK\r\n/);
        expect(connection.received()).to.match(/\r\nconnection: close\r\n/i);
        expect(connection.received().endsWith(blob.toString("latin1"))).to.equal(true);
      });

      it(`waits for no connection on which nothing is under way (${scheme})`, async () => {
        const used = await open(scheme);
        used.send(get("none/tags/list"));
        await used.waitFor(/NAME_UNKNOWN/);
        const unused = await open(scheme);
        expect(await stopped(20_000)).to.be.below(15_000);
        await used.closed;
        await unused.closed;
      });

      it(`ends what takes longer than its grace (${scheme})`, async () => {
        neverAnswer(registry, "GET tags");
        const connection = await open(scheme);
        connection.send(get("app/tags/list"));
        await arrived();
        expect(await stopped(100)).to.be.below(15_000);
        await connection.closed;
      });
    }

    it("ends a connection in the middle of a TLS handshake", async () => {
      const socket = connect(port("https"), "127.0.0.1");
      resources.defer(() => socket.destroy());
      await once(socket, "connect");
      socket.on("error", () => {});
      await sleep(20);
      expect(await stopped(100)).to.be.below(15_000);
    });

    it("ends what waits for a token server", async () => {
      registry.auth.mode = "bearer";
      tokenEndpoint.hangs(registry);
      const answering = client("GET", "app/tags/list").catch((error: Error) => error);
      await arrived();
      expect(await stopped(100)).to.be.below(10_000);
      expect(await answering).to.be.instanceOf(Error);
    });

    it("ends what waits for a registry's TLS handshake", async () => {
      const silent = resources.add(await startSilentServer());
      proxy.connect("silent", `https://${silent.host}`);
      const answering = clientOf(proxy, "silent")("GET", "app/tags/list").catch(
        (error: Error) => error,
      );
      await sleep(50);
      expect(await stopped(100)).to.be.below(8_000);
      expect(await answering).to.be.instanceOf(Error);
    });

    it("takes no new connections", async () => {
      await stopped(0);
      const error = await client("GET", "/v2/").catch((reason: Error) => reason);
      expect(error).to.have.property("code", "ECONNREFUSED");
    });
  });

  it("that can't have its address leaves nothing behind", async () => {
    const [host = "", taken = ""] = registry.host.split(":");
    const free = await freePort();
    const listen = [
      { scheme: "http", host, port: free },
      { scheme: "https", host, port: Number(taken) },
    ] as const;
    const error = await startTestProxy({ listen }).catch((reason: Error) => reason);
    expect(error).to.have.property("code", "EADDRINUSE");
    const socket = connect(free, host);
    const [reason] = await once(socket, "error");
    expect(reason).to.have.property("code", "ECONNREFUSED");
  });

  async function freePort(): Promise<number> {
    const other = await startFakeRegistry();
    await other.stop();
    return Number(other.host.split(":")[1]);
  }
});
