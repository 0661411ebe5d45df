import { createHash, hash } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, type LookupFunction, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createSecureContext, createServer as createTlsServer } from "node:tls";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../../src/certificate-authority.ts";
import { BufferBudget } from "../../../src/upstream/http-client/body-buffers.ts";
import type { Abort, ResponseHead } from "../../../src/upstream/http-client/http-exchange.ts";
import {
  createReadClient,
  type ReadClient,
} from "../../../src/upstream/http-client/read-client.ts";
import { cleanup, type Stoppable } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { noise } from "../../support/oci-image.ts";

/** What a server does with the head of a request; `count` is how many its connection has seen before. */
type Answering = (socket: Socket, head: string, count: number) => void;

interface RawServer extends Stoppable {
  readonly url: string;
  /** Connections that were made, in order. */
  readonly sockets: Socket[];
  answer: Answering;
}

interface Identity {
  readonly cert: string;
  readonly key: string;
}

async function startRawServer(answer: Answering, identity?: Identity): Promise<RawServer> {
  const sockets: Socket[] = [];
  const serve = (socket: Socket): void => {
    sockets.push(socket);
    let [text, count] = ["", 0];
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
        const head = text.slice(0, end);
        text = text.slice(end + 4);
        started.answer(socket, head, count);
        count += 1;
      }
    });
  };
  const server =
    identity === undefined
      ? createServer({ noDelay: true }, serve)
      : createTlsServer({ ...identity, noDelay: true }, serve);
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  const started: RawServer = {
    url: `${identity === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    sockets,
    answer,
    stop: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
  return started;
}

/** What came of a request. */
interface Got {
  head?: ResponseHead;
  readonly chunks: Buffer[];
  /** Chunks that are not released, if they are held. */
  readonly held: (() => void)[];
  end?: "whole" | Error;
  abort: Abort;
}

const bytesOf = ({ chunks }: Got): Buffer => Buffer.concat(chunks);
const textOf = (got: Got): string => bytesOf(got).toString("latin1");

interface Asking {
  readonly method?: string;
  readonly body?: Buffer;
  readonly holds?: boolean;
}

function ask(client: ReadClient, url: string, options: Asking = {}): Got {
  const { method = "GET", body, holds = false } = options;
  const got: Got = { chunks: [], held: [], abort: () => undefined };
  const request = { url: new URL(url), method, headers: { "x-a": "1" }, body };
  got.abort = client.send(request, {
    onHead: (head) => {
      expect(got).to.not.have.any.keys("head", "end");
      got.head = head;
    },
    onData(chunk, release) {
      expect(got).to.not.have.any.keys("end");
      got.chunks.push(Buffer.from(chunk));
      if (holds) got.held.push(release);
      else setImmediate(release);
    },
    onEnd: () => {
      expect(got).to.not.have.any.keys("end");
      got.end = "whole";
    },
    onError: (error) => {
      expect(got).to.not.have.any.keys("end");
      got.end = error;
    },
  });
  return got;
}

const done = async (got: Got): Promise<Got> => {
  await eventually(
    () => got.end !== undefined,
    () => `no end after ${bytesOf(got).length} bytes`,
  );
  return got;
};

const whole = async (got: Got): Promise<string> => {
  const { end } = await done(got);
  if (end !== "whole") throw end ?? new Error();
  return textOf(got);
};

const failure = async (got: Got): Promise<string> => {
  const { end } = await done(got);
  return end instanceof Error && "code" in end ? String(end.code) : String(end);
};

const answerOf = (body: string | Buffer, ...headers: readonly string[]): Buffer => {
  const lines = ["HTTP/1.1 200 OK", `Content-Length: ${body.length}`, ...headers];
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`), Buffer.from(body)]);
};

const bodyTimeoutMs = 300;
const lookupLoopback: LookupFunction = (_host, { all }, callback) => {
  if (all) callback(null, [{ address: "127.0.0.1", family: 4 }]);
  else callback(null, "127.0.0.1", 4);
};

describe("the client that reads from registries", function () {
  this.timeout(20_000);
  const resources = cleanup();
  afterEach(resources.stop);

  let client: ReadClient;

  interface Settings {
    readonly ca?: string;
    readonly lookup?: LookupFunction;
    readonly keepAliveTimeoutMs?: number;
    readonly connectTimeoutMs?: number;
    readonly headersTimeoutMs?: number;
    readonly budget?: number;
  }

  function start(settings: Settings = {}): ReadClient {
    client = createReadClient({
      routeTo: () => settings.lookup ?? lookupLoopback,
      secureContextFor: () =>
        createSecureContext(settings.ca === undefined ? {} : { ca: settings.ca }),
      maxHeaderBytes: 16 * 1024,
      connectTimeoutMs: settings.connectTimeoutMs ?? 5000,
      headersTimeoutMs: settings.headersTimeoutMs ?? 5000,
      bodyTimeoutMs,
      keepAliveTimeoutMs: settings.keepAliveTimeoutMs ?? 5000,
      budget: new BufferBudget(settings.budget ?? 4 * 1024 * 1024),
    });
    resources.defer(() => client.destroy());
    return client;
  }

  const serve = async (answer: Answering, identity?: Identity): Promise<RawServer> =>
    resources.add(await startRawServer(answer, identity));

  describe("and a connection", () => {
    beforeEach(() => {
      start();
    });

    it("sends the head of a request as it is meant, and nothing else", async () => {
      const heads: string[] = [];
      const { url } = await serve((socket, head) => {
        heads.push(head);
        socket.write(answerOf(""));
      });
      await whole(ask(client, `${url}/v2/a?b=%20c`));
      expect(heads).to.deep.equal([
        `GET /v2/a?b=%20c HTTP/1.1\r\nhost: ${url.slice("http://".length)}\r\nx-a: 1`,
      ]);
    });

    it("is used again for one request after the other", async () => {
      const server = await serve((socket, _head, count) => socket.write(answerOf(`${count}`)));
      for (let time = 0; time < 5; time += 1) {
        expect(await whole(ask(client, server.url))).to.equal(`${time}`);
      }
      expect(server.sockets).to.have.lengthOf(1);
    });

    it("is kept as long as no more than 256 others were used since", async () => {
      const held: Socket[] = [];
      const server = await serve((socket) => held.push(socket));
      const all = Array.from({ length: 260 }, () => ask(client, server.url));
      await eventually(
        () => held.length === all.length,
        () => `${held.length} requests have come`,
      );
      for (const socket of held) socket.write(answerOf("x"));
      await Promise.all(all.map(whole));
      const isOpen = (socket: Socket): boolean => !socket.readableEnded && !socket.destroyed;
      await eventually(
        () => server.sockets.filter(isOpen).length === 256,
        () => `${server.sockets.filter(isOpen).length} connections are open`,
      );
      server.answer = (socket) => socket.write(answerOf("y"));
      expect(await whole(ask(client, server.url))).to.equal("y");
      expect(server.sockets).to.have.lengthOf(260);
    });

    it("carries one request at a time", async () => {
      const server = await serve((socket) => setTimeout(() => socket.write(answerOf("x")), 20));
      const all = Array.from({ length: 10 }, () => ask(client, server.url));
      await Promise.all(all.map(whole));
      expect(server.sockets).to.have.lengthOf(10);
    });

    for (const [why, answer] of [
      ["Connection: close", answerOf("x", "Connection: close")],
      ["an answer to HEAD with a body", answerOf("x")],
    ] as const) {
      it(`is not used again after ${why}`, async () => {
        const server = await serve((socket) => socket.write(answer));
        const method = why.includes("HEAD") ? "HEAD" : "GET";
        await whole(ask(client, server.url, { method }));
        await whole(ask(client, server.url, { method }));
        expect(server.sockets).to.have.lengthOf(2);
      });
    }

    it("is not used again once bytes came that nobody asked for", async () => {
      const server = await serve((socket, _head, count) => {
        socket.write(answerOf(`${count}`));
        setTimeout(() => socket.write(answerOf("poison")), 20);
      });
      expect(await whole(ask(client, server.url))).to.equal("0");
      await eventually(
        () => server.sockets[0]?.closed,
        () => "still open",
      );
      expect(await whole(ask(client, server.url))).to.equal("0");
    });

    it("ends with an answer that is longer than it has promised", async () => {
      const server = await serve((socket) => socket.write(`${answerOf("x")}poison`));
      expect(await failure(ask(client, server.url))).to.equal("LENGTH_MISMATCH");
      server.answer = (socket) => socket.write(answerOf("good"));
      expect(await whole(ask(client, server.url))).to.equal("good");
      expect(server.sockets).to.have.lengthOf(2);
    });

    it("ends with a long body that is longer than it has promised", async () => {
      const body = noise("body", 1_000_000);
      const server = await serve((socket) => {
        socket.write(answerOf(body).subarray(0, 500_000));
        setTimeout(() => socket.write(Buffer.concat([body.subarray(-600_000), body])), 20);
      });
      expect(await failure(ask(client, server.url))).to.equal("LENGTH_MISMATCH");
    });

    it("that was closed while it was idle is not used", async () => {
      const server = await serve((socket) => socket.end(answerOf("x")));
      for (let time = 0; time < 3; time += 1) {
        await whole(ask(client, server.url));
        await sleep(20);
      }
      expect(server.sockets).to.have.lengthOf(3);
    });

    it("that is closed just when it is used again takes the other idle ones with it", async () => {
      const server = await serve((socket, _head, count) => {
        if (count > 0) socket.resetAndDestroy();
        else setTimeout(() => socket.write(answerOf("x")), 20);
      });
      await Promise.all([0, 1, 2].map(() => whole(ask(client, server.url))));
      expect(await failure(ask(client, server.url))).to.be.oneOf([
        "ECONNRESET",
        "CONNECTION_CLOSED",
      ]);
      expect(await whole(ask(client, server.url))).to.equal("x");
      expect(server.sockets).to.have.lengthOf(4);
    });

    it("is closed once it was idle for some time", async () => {
      start({ keepAliveTimeoutMs: 50 });
      const server = await serve((socket) => socket.write(answerOf("x")));
      await whole(ask(client, server.url));
      await eventually(
        () => server.sockets[0]?.closed,
        () => "still open",
      );
    });

    it("is not kept any more once its client has retired, and what is under way goes on", async () => {
      const server = await serve((socket) => setTimeout(() => socket.write(answerOf("x")), 50));
      const got = ask(client, server.url);
      client.retire();
      expect(await whole(got)).to.equal("x");
      await eventually(
        () => server.sockets[0]?.closed,
        () => "still open",
      );
    });

    it("tells who waits when its client is destroyed", async () => {
      const server = await serve(() => undefined);
      const got = ask(client, server.url);
      await eventually(
        () => server.sockets.length > 0,
        () => "no connection",
      );
      client.destroy();
      expect(await failure(got)).to.equal("CLIENT_DESTROYED");
    });
  });

  describe("and an answer", () => {
    beforeEach(() => {
      start();
    });

    const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    it("that comes in chunks is read, small and large, and the connection is used again", async () => {
      const large = noise("large", 3_000_000);
      const server = await serve((socket, head) => {
        socket.write(chunkedHead);
        const body = head.includes("/small") ? Buffer.from("hello") : large;
        for (let from = 0; from < body.length; from += 100_001) {
          const part = body.subarray(from, from + 100_001);
          socket.write(`${part.length.toString(16)};x=1\r\n`);
          socket.write(part);
          socket.write("\r\n");
        }
        socket.write("0\r\nX-Trailer: 1\r\n\r\n");
      });
      for (const path of ["/small", "/large", "/small", "/large"]) {
        const got = ask(client, server.url + path);
        await whole(got);
        const expected = path === "/small" ? Buffer.from("hello") : large;
        expect(bytesOf(got).equals(expected), path).to.equal(true);
      }
      expect(server.sockets).to.have.lengthOf(1);
    });

    it("that comes in chunks of which the last is missing has failed", async () => {
      const server = await serve((socket) => socket.end(`${chunkedHead}5\r\nhello\r\n`));
      const got = ask(client, server.url);
      expect(await failure(got)).to.equal("CONNECTION_CLOSED");
      expect(textOf(got)).to.be.oneOf(["", "hello"]);
    });

    it("whose chunks are wrong has failed, in the first bytes and later", async () => {
      const server = await serve((socket) => socket.write(`${chunkedHead}5\r\nhello!\r\n`));
      expect(await failure(ask(client, server.url))).to.equal("INVALID_RESPONSE");
      server.answer = (socket) => {
        socket.write(`${chunkedHead}5\r\nhello`);
        setTimeout(() => socket.write("!\r\n0\r\n\r\n"), 30);
      };
      expect(await failure(ask(client, server.url))).to.equal("INVALID_RESPONSE");
    });

    it("behind whose last chunk more comes is whole, and its connection is not used again", async () => {
      const server = await serve((socket) =>
        socket.write(`${chunkedHead}5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n`),
      );
      for (let time = 0; time < 2; time += 1) {
        expect(await whole(ask(client, server.url))).to.equal("hello");
      }
      expect(server.sockets).to.have.lengthOf(2);
    });

    it("to HEAD that announces chunks has none, and the connection is used again", async () => {
      const server = await serve((socket) => socket.write(chunkedHead));
      for (let time = 0; time < 2; time += 1) {
        expect(await whole(ask(client, server.url, { method: "HEAD" }))).to.equal("");
      }
      expect(server.sockets).to.have.lengthOf(1);
    });

    for (const version of ["1.0", "1.1"]) {
      it(`of HTTP/${version} that does not say its length ends with its connection`, async () => {
        const body = noise("body", 300_000);
        const server = await serve((socket) => {
          socket.write(`HTTP/${version} 200 OK\r\nETag: "x"\r\n\r\n`);
          socket.end(body);
        });
        for (let time = 0; time < 2; time += 1) {
          const got = ask(client, server.url);
          await whole(got);
          expect(bytesOf(got).equals(body)).to.equal(true);
        }
        expect(server.sockets).to.have.lengthOf(2);
      });
    }

    it("that does not say its length has failed where its connection is reset", async () => {
      const server = await serve((socket) => {
        socket.write("HTTP/1.1 200 OK\r\n\r\nhello");
        setTimeout(() => socket.resetAndDestroy(), 30);
      });
      expect(await failure(ask(client, server.url))).to.equal("ECONNRESET");
    });

    it("of HTTP/1.0 is the last one of its connection", async () => {
      const server = await serve((socket) =>
        socket.write("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
      );
      for (let time = 0; time < 2; time += 1) {
        expect(await whole(ask(client, server.url))).to.equal("x");
      }
      expect(server.sockets).to.have.lengthOf(2);
    });

    const unreadable = [
      "HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-A: 1\r\n 2\r\n\r\nx",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\n\r\n",
      "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ];
    for (const text of unreadable) {
      it(`that can't be read is asked for once: ${JSON.stringify(text.slice(0, 60))}`, async () => {
        let requests = 0;
        const server = await serve((socket) => {
          requests += 1;
          socket.write(text);
        });
        expect(await failure(ask(client, server.url))).to.equal("INVALID_RESPONSE");
        expect(requests).to.equal(1);
        await eventually(
          () => server.sockets[0]?.closed,
          () => "the connection is still open",
        );
      });
    }

    for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
      it(`to ${method} with a body that is held, and without, is read`, async () => {
        const heads: string[] = [];
        const server = await serve((socket, head) => {
          heads.push(head);
          socket.write(answerOf("x"));
        });
        const body = Buffer.alloc(1000, "b");
        expect(await whole(ask(client, server.url, { method }))).to.equal("x");
        expect(await whole(ask(client, server.url, { method, body }))).to.equal("x");
        const framings = heads.map((head) => head.split("\r\n").slice(3));
        const bodiless = method === "DELETE" ? [] : ["content-length: 0"];
        expect(framings).to.deep.equal([bodiless, ["content-length: 1000"]]);
        const sentBytes = heads.join("").length + 2 * "\r\n\r\n".length + body.length;
        await eventually(
          () => server.sockets[0]?.bytesRead === sentBytes,
          () => `${server.sockets[0]?.bytesRead} bytes came, wanted ${sentBytes}`,
        );
      });
    }

    it("that comes before the request is sent is read, and its connection is not used again", async () => {
      const server = await serve((socket) => {
        socket.pause();
        socket.write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
      });
      const body = Buffer.alloc(8 * 1024 * 1024);
      for (let time = 0; time < 2; time += 1) {
        const got = ask(client, server.url, { method: "PUT", body });
        await whole(got);
        expect(got.head).to.include({ status: 413 });
      }
      expect(server.sockets).to.have.lengthOf(2);
    });

    it("may come after informational ones, in pieces", async () => {
      const pieces = ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r", "\n\r", "\n", answerOf("x")];
      const server = await serve((socket) => {
        for (const [index, piece] of pieces.entries()) {
          setTimeout(() => socket.write(piece), 10 * index);
        }
      });
      expect(await whole(ask(client, server.url))).to.equal("x");
    });

    for (const [how, end] of [
      ["ends", (socket: Socket) => socket.end()],
      ["is reset", (socket: Socket) => socket.resetAndDestroy()],
    ] as const) {
      it(`that ${how} before its end has failed`, async () => {
        const body = noise("body", 700_000);
        const server = await serve((socket) => {
          socket.write(answerOf(body).subarray(0, 600_000));
          setTimeout(end, 30, socket);
        });
        const got = ask(client, server.url);
        expect(await failure(got)).to.be.oneOf(["ECONNRESET", "CONNECTION_CLOSED"]);
        expect(bytesOf(got).equals(body.subarray(0, bytesOf(got).length))).to.equal(true);
      });

      it(`that ${how} in its head has failed`, async () => {
        const server = await serve((socket) => {
          socket.write("HTTP/1.1 200 OK\r\nContent-Le");
          setTimeout(end, 30, socket);
        });
        const got = ask(client, server.url);
        expect(await failure(got)).to.be.oneOf(["ECONNRESET", "CONNECTION_CLOSED"]);
        expect(got.head).to.equal(undefined);
      });
    }

    it("whose head does not come in time has failed, also where it comes byte by byte", async () => {
      const server = await serve(() => undefined);
      start({ headersTimeoutMs: 200 });
      const silent = ask(client, server.url);
      expect(await failure(silent)).to.equal("HEADERS_TIMEOUT");
      server.answer = (socket) => {
        const timer = setInterval(() => socket.write("H"), 40);
        socket.on("close", () => clearInterval(timer));
      };
      const slow = ask(client, server.url);
      expect(await failure(slow)).to.equal("HEADERS_TIMEOUT");
    });

    it("whose head is too long has failed", async () => {
      const server = await serve((socket) =>
        socket.write(answerOf("x", `X-A: ${"a".repeat(17_000)}`)),
      );
      expect(await failure(ask(client, server.url))).to.equal("HEADERS_OVERFLOW");
    });

    it("that stops in the middle has failed", async () => {
      const server = await serve((socket) =>
        socket.write(answerOf(noise("body", 10_000)).subarray(0, 5000)),
      );
      expect(await failure(ask(client, server.url))).to.equal("BODY_TIMEOUT");
    });

    it("ends with the request that is aborted, at once and with its connection", async () => {
      const server = await serve((socket) =>
        socket.write(answerOf(noise("body", 10_000)).subarray(0, 5000)),
      );
      const got = ask(client, server.url);
      await eventually(
        () => got.chunks.length > 0,
        () => "nothing came",
      );
      got.abort(new Error("enough"));
      expect(got.end).to.be.an("error").with.property("message", "enough");
      await eventually(
        () => server.sockets[0]?.closed,
        () => "still open",
      );
      got.abort(new Error("once more"));
      expect(got.end).to.have.property("message", "enough");
    });

    it("does not touch the next one where its request is aborted too late", async () => {
      const server = await serve((socket) => setTimeout(() => socket.write(answerOf("x")), 20));
      const first = ask(client, server.url);
      await whole(first);
      const second = ask(client, server.url);
      first.abort(new Error("too late"));
      expect(await whole(second)).to.equal("x");
      expect(server.sockets).to.have.lengthOf(1);
    });

    it("ends with what its handler throws at the head", async () => {
      const server = await serve((socket) => socket.write(answerOf("x")));
      let failed: unknown;
      const request = {
        url: new URL(server.url),
        method: "GET",
        headers: {},
      };
      client.send(request, {
        onHead: () => {
          throw new TypeError("no such answer");
        },
        onData: () => expect.fail("data"),
        onEnd: () => expect.fail("ended"),
        onError: (error) => {
          failed = error;
        },
      });
      await eventually(
        () => failed !== undefined,
        () => "no failure",
      );
      expect(failed).to.be.a.instanceOf(TypeError);
    });
  });

  describe("and a request", () => {
    beforeEach(() => {
      start();
    });

    const hostile: readonly (readonly [string, string])[] = [
      ["x-a", "1\r\nx-b: 2"],
      ["x-a", "1\n2"],
      ["x-a", "1\0"],
      ["x-a\r\nx-b", "1"],
      ["x a", "1"],
      ["", "1"],
      ["content-length", "5"],
      ["transfer-encoding", "chunked"],
      ["host", "other.test"],
      ["connection", "upgrade"],
    ];
    for (const [name, value] of hostile) {
      it(`is not sent with the header ${JSON.stringify(`${name}: ${value}`)}`, async () => {
        const server = await serve(() => undefined);
        const url = new URL(server.url);
        const send = (): unknown =>
          client.send(
            { url, method: "GET", headers: { [name]: value } },
            {
              onHead: () => undefined,
              onData: () => undefined,
              onEnd: () => undefined,
              onError: () => undefined,
            },
          );
        expect(send).to.throw(TypeError);
        expect(server.sockets).to.have.lengthOf(0);
      });
    }
  });

  describe("and where a name leads", () => {
    it("goes to the address that the lookup says, with the name in Host", async () => {
      start();
      let host = "";
      const { url } = await serve((socket, head) => {
        host = head;
        socket.write(answerOf("x"));
      });
      const { port } = new URL(url);
      await whole(ask(client, `http://harbor.test:${port}/`));
      expect(host).to.match(new RegExp(`^host: harbor\\.test:${port}$`, "m"));
    });

    it("fails with what the lookup says", async () => {
      const error = Object.assign(new Error("no"), { code: "ENOTFOUND" });
      start({ lookup: (_host, _options, callback) => callback(error, "", 0) });
      expect(await failure(ask(client, "http://harbor.test/"))).to.equal("ENOTFOUND");
    });

    it("tries the next address where one does not answer", async () => {
      const { url } = await serve((socket) => socket.write(answerOf(noise("body", 300_000))));
      const addresses = [
        { address: "::1", family: 6 },
        { address: "127.0.0.1", family: 4 },
      ];
      start({ lookup: (_host, _options, callback) => callback(null, addresses) });
      const got = ask(client, `http://harbor.test:${new URL(url).port}/`);
      expect(await whole(got)).to.have.lengthOf(300_000);
    });

    it("waits for a connection no longer than it may", async () => {
      start({ connectTimeoutMs: 100, lookup: () => undefined });
      const got = ask(client, "http://harbor.test/");
      expect(await failure(got)).to.equal("CONNECT_TIMEOUT");
    });
  });

  describe("with TLS", () => {
    const now = new Date();
    let authority: string;
    let identities: Map<string, Identity>;

    before(async () => {
      const made = await createAuthority("test", now);
      authority = made.certificate;
      const issue = await createLeafIssuer(made);
      identities = new Map();
      for (const name of ["127.0.0.1", "harbor.test"]) {
        const { certificate, privateKey } = await issue(name, now);
        identities.set(name, { cert: certificate, key: privateKey });
      }
    });
    const serveAs = (name: string, answer: Answering): Promise<RawServer> =>
      serve(answer, identities.get(name));

    it("reads what comes, and uses the connection again", async () => {
      start({ ca: authority });
      const body = noise("body", 5_000_000);
      const server = await serveAs("127.0.0.1", (socket) => socket.write(answerOf(body)));
      for (let time = 0; time < 3; time += 1) {
        const got = ask(client, server.url);
        await whole(got);
        expect(bytesOf(got).equals(body)).to.equal(true);
      }
      expect(server.sockets).to.have.lengthOf(1);
    });

    it("trusts nobody but the authorities that it was given", async () => {
      start();
      const server = await serveAs("127.0.0.1", () => expect.fail("a request came"));
      expect(await failure(ask(client, server.url))).to.match(/CERT|SIGNATURE|ISSUER/);
    });

    it("trusts no certificate for another name, not even with a session of that name", async () => {
      start({ ca: authority });
      const server = await serveAs("harbor.test", (socket) =>
        socket.write(answerOf("x", "Connection: close")),
      );
      const { port } = new URL(server.url);
      const wrong = async (): Promise<void> => {
        const got = ask(client, `https://other.test:${port}/`);
        expect(await failure(got)).to.equal("ERR_TLS_CERT_ALTNAME_INVALID");
      };
      await wrong();
      for (let time = 0; time < 3; time += 1) {
        expect(await whole(ask(client, `https://harbor.test:${port}/`))).to.equal("x");
        await wrong();
      }
    });

    it("waits for a handshake no longer than it may", async () => {
      start({ ca: authority, connectTimeoutMs: 100 });
      const server = await serve(() => undefined);
      const got = ask(client, server.url.replace("http:", "https:"));
      expect(await failure(got)).to.equal("CONNECT_TIMEOUT");
    });

    it("lets the next answer come, whoever still holds the end of the one before", async () => {
      start({ ca: authority, budget: 1 });
      const body = noise("body", 200_000);
      const server = await serveAs("127.0.0.1", (socket) => socket.write(answerOf(body)));
      for (let time = 0; time < 5; time += 1) {
        const got = ask(client, server.url, { holds: true });
        // The last chunks are never released.
        await eventually(
          () => {
            if (got.end === undefined) got.held.shift()?.();
            return got.end !== undefined;
          },
          () => "the answer does not end",
        );
        expect(got.end).to.equal("whole");
        expect(bytesOf(got).equals(body)).to.equal(true);
      }
      expect(server.sockets).to.have.lengthOf(1);
    });
  });

  for (const scheme of ["http", "https"] as const) {
    describe(`and who is slow (${scheme})`, () => {
      let identity: Identity | undefined;
      let ca: string;

      before(async () => {
        const now = new Date();
        const made = await createAuthority("test", now);
        ca = made.certificate;
        const { certificate, privateKey } = await (await createLeafIssuer(made))("127.0.0.1", now);
        identity = scheme === "http" ? undefined : { cert: certificate, key: privateKey };
      });

      it("holds the registry back, and is not taken for a registry that is silent", async () => {
        start({ ca, budget: 512 * 1024 });
        const body = noise("body", 20_000_000);
        const server = await serve((socket) => socket.write(answerOf(body)), identity);
        const got = ask(client, server.url, { holds: true });
        await eventually(
          () => got.held.length >= 2,
          () => "nothing came",
        );
        await sleep(2 * bodyTimeoutMs);
        expect(got.end).to.equal(undefined);
        expect(bytesOf(got).length).to.be.below(1024 * 1024);
        while (got.end === undefined) {
          for (const release of got.held.splice(0)) release();
          await sleep(0);
        }
        expect(got.end).to.equal("whole");
        expect(bytesOf(got).equals(body)).to.equal(true);
      });

      it("gets the bytes of nobody else", async () => {
        const aborted = 3;
        start({ ca, budget: 1024 * 1024 });
        const bodies = new Map<string, Buffer>();
        for (let index = 0; index < 20; index += 1) {
          bodies.set(`/${index}`, noise(`body-${index}`, 100_000 + 77_777 * index));
        }
        const server = await serve((socket, head) => {
          const path = head.split(" ")[1] ?? "";
          socket.write(answerOf(bodies.get(path) ?? ""));
        }, identity);
        /** Looks at each chunk as late as it may be. */
        const read = async (path: string, delay: number): Promise<string> => {
          const hash = createHash("sha256");
          const { promise, resolve, reject } = Promise.withResolvers<void>();
          const request = { url: new URL(path, server.url), method: "GET", headers: {} };
          const abort = client.send(request, {
            onHead: () => undefined,
            onData: (chunk, release) =>
              setTimeout(() => {
                hash.update(chunk);
                release();
              }, delay),
            onEnd: () => setTimeout(resolve, delay + 20),
            onError: reject,
          });
          if (delay === aborted) setTimeout(() => abort(new Error("enough")), 30);
          await promise;
          return hash.digest("hex");
        };
        const check = async (path: string, delay: number): Promise<void> => {
          const got = read(path, delay);
          if (delay === aborted) await got.catch(() => undefined);
          else expect(await got, path).to.equal(hash("sha256", bodies.get(path) ?? ""));
        };
        await Promise.all([...bodies.keys()].map((path, index) => check(path, index % 5)));
      });
    });
  }
});
