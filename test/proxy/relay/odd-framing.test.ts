import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy } from "../test-proxy.ts";

/** A registry of which a test writes every byte, and the requests that it has got: `GET /v2/`. */
interface RawRegistry {
  readonly requests: string[];
  readonly client: TestClient;
}

const type = "application/vnd.oci.image.manifest.v1+json";
const manifest = Buffer.from(`{"schemaVersion":2,"mediaType":"${type}"}`.padEnd(4096));

describe("a registry whose responses are framed oddly", function () {
  this.timeout(20_000);
  const resources = cleanup();
  afterEach(resources.stop);

  /** @param answer gets the method and the path of each request, and writes a response */
  async function reach(
    answer: (socket: Socket, method: string, path: string) => void,
  ): Promise<RawRegistry> {
    const requests: string[] = [];
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      let text = "";
      sockets.add(socket);
      socket
        .on("error", () => undefined)
        .on("data", (chunk) => {
          text += chunk.toString("latin1");
          const end = text.indexOf("\r\n\r\n");
          const length = Number(/^content-length: (\d+)$/im.exec(text.slice(0, end))?.[1] ?? 0);
          if (end < 0 || text.length < end + 4 + length) return;
          const [method = "", path = ""] = text.split(" ", 2);
          text = text.slice(end + 4 + length);
          requests.push(`${method} ${path}`);
          answer(socket, method, path);
        });
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    resources.defer(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    return { requests, client: clientOf(proxy, "harbor") };
  }
  const chunked = (body: Buffer, size: number): Buffer => {
    const parts: Buffer[] = [];
    for (let from = 0; from < body.length; from += size) {
      const part = body.subarray(from, from + size);
      parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from("\r\n"));
    }
    return Buffer.concat([...parts, Buffer.from("0\r\n\r\n")]);
  };

  it(oddRegistry("chunked"), async () => {
    const blob = noise("blob", 2_000_000);
    const { requests, client } = await reach((socket, _method, path) => {
      const body = path.includes("manifests") ? manifest : blob;
      socket.write(
        `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      );
      socket.write(chunked(body, path.includes("manifests") ? 2048 : 100_003));
    });
    for (const reference of ["1", sha256(manifest)]) {
      const pulled = await client("GET", `app/manifests/${reference}`);
      expect(pulled.status).to.equal(200);
      expect(pulled.body.equals(manifest)).to.equal(true);
    }
    const whole = await client("GET", `app/blobs/${sha256(blob)}`);
    expect(whole.body.equals(blob)).to.equal(true);
    expect(requests).to.deep.equal([
      "GET /v2/",
      "GET /v2/app/manifests/1",
      `GET /v2/app/manifests/${sha256(manifest)}`,
      `GET /v2/app/blobs/${sha256(blob)}`,
    ]);
  });

  it(oddRegistry("equal-lengths"), async () => {
    const { requests, client } = await reach((socket, method) => {
      const body = method === "GET" ? manifest : Buffer.alloc(0);
      const status = { GET: 200, HEAD: 200, PUT: 201, DELETE: 202, POST: 202 }[method] ?? 500;
      const length = `Content-Length: ${method === "HEAD" ? manifest.length : body.length}\r\n`;
      const more = "Location: /v2/app/blobs/uploads/1\r\n";
      socket.write(
        `HTTP/1.1 ${status} OK\r\n${length}Content-Type: ${type}\r\n${more}${length}\r\n`,
      );
      socket.write(body);
    });
    const pulled = await client("GET", "app/manifests/1");
    expect(pulled.body.equals(manifest)).to.equal(true);
    expect(pulled.headers["content-length"]).to.equal(String(manifest.length));
    const length = pulled.rawHeaders.filter((name) => name.toLowerCase() === "content-length");
    expect(length).to.have.lengthOf(1);
    expect((await client("HEAD", "app/manifests/1")).status).to.equal(200);
    const pushed = await client("PUT", "app/manifests/2", {
      headers: { "content-type": type },
      body: manifest,
    });
    expect(pushed.status).to.equal(201);
    expect((await client("DELETE", "app/manifests/2")).status).to.equal(202);
    expect((await client("POST", "app/blobs/uploads/")).status).to.equal(202);
    expect(requests).to.have.lengthOf(6);
  });

  it(oddRegistry("ambiguous"), async () => {
    const heads: readonly (readonly [why: string, ...lines: string[]])[] = [
      ["it has several Content-Lengths, which differ", "Content-Length: 5", "Content-Length: 6"],
      [
        "it has a Transfer-Encoding and a Content-Length",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
      ],
      ["its Transfer-Encoding is another one than chunked", "Transfer-Encoding: gzip, chunked"],
      ["its head has a line that is no header", "Content-Length: 5", "X-A: 1", " folded"],
      ["its Content-Length is 1 PB or more", "Content-Length: 9007199254740992"],
      ["its Content-Length is no number", "Content-Length: five"],
    ];
    for (const [why, ...lines] of heads) {
      const { requests, client } = await reach((socket, _method, path) => {
        const own = path === "/v2/" ? ["Content-Length: 5"] : lines;
        socket.write(`HTTP/1.1 200 OK\r\n${own.join("\r\n")}\r\n\r\nhello`);
      });
      const answer = await client("GET", "app/tags/list");
      expect(answer.status, lines.join()).to.equal(502);
      expect(errorIn(answer).message).to.contain(`its response is not valid HTTP/1.1: ${why}`);
      expect(requests).to.deep.equal(["GET /v2/", "GET /v2/app/tags/list"]);
    }
  });

  it("with chunks of a size that is none, or that nobody can count, gets an error that says which", async () => {
    for (const [size, why] of [
      ["20000000000000", "a chunk says that it has 4 PiB or more"],
      ["ffffffffffffffffffff", "a chunk says that it has 4 PiB or more"],
      ["x", "a chunk begins without its size"],
    ] as const) {
      const { client } = await reach((socket, _method, path) =>
        socket.write(
          path === "/v2/"
            ? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            : `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${size}\r\nhello`,
        ),
      );
      const answer = await client("GET", "app/tags/list");
      expect(answer.status, size).to.equal(502);
      expect(errorIn(answer).message).to.contain(why);
    }
    const { client } = await reach((socket) =>
      socket.write(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n",
      ),
    );
    expect((await client("GET", "app/tags/list")).body.toString()).to.equal("hello");
  });

  it("in the answers to uploads, gets errors in words", async () => {
    const badLength =
      "its Content-Length is no number, is too large, or stands beside a Transfer-Encoding";
    for (const [why, ...lines] of [
      ["it has its Content-Length twice", "Content-Length: 0", "Content-Length: 0"],
      [
        "it has a Transfer-Encoding and a Content-Length",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
      ],
      [badLength, "Transfer-Encoding: chunked", "Content-Length: 0"],
      [badLength, "Content-Length: five"],
      [badLength, `Content-Length: ${"9".repeat(30)}`],
      ["its head has a character that none may have", "X A: x"],
    ] as const) {
      const { client } = await reach((socket, method) => {
        const own = method === "POST" ? lines : ["Content-Length: 0"];
        socket.write(`HTTP/1.1 202 OK\r\n${own.join("\r\n")}\r\n\r\n`);
      });
      const answer = await client("POST", `app/blobs/uploads/?digest=${sha256(manifest)}`, {
        body: manifest,
      });
      expect(answer.status, lines.join()).to.equal(502);
      const { message, detail } = errorIn(answer);
      expect(message).to.contain(`its response is not valid HTTP/1.1: ${why}`);
      expect(message + detail).to.not.match(/HPE|Parse Error/);
    }
  });
});
