import type { AddressInfo, Server } from "node:net";
import { createServer as createPlainServer, type Socket } from "node:net";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const type = "application/vnd.oci.image.manifest.v1+json";

describe("a registry that is odd about pushes", function () {
  this.timeout(30_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let proxy: TestProxy;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    storage = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy());
  });
  beforeEach(() => registry.repositories.clear());
  afterEach(undo.stop);
  after(resources.stop);

  const another = sha256(Buffer.from("another"));
  const manifest = (annotation: string): string =>
    JSON.stringify({ schemaVersion: 2, mediaType: type, layers: [], annotations: { annotation } });
  const push = (client: TestClient, tag: string, annotation: string) =>
    client("PUT", `app/manifests/${tag}`, {
      headers: { "content-type": type },
      body: manifest(annotation),
    });

  describe("and has immutable tags", () => {
    /** @param change makes the values of Docker-Content-Digest that are sent out of the right one */
    const withDigests = (method: "HEAD" | "GET", change: (digest: string) => readonly string[]) =>
      registry.on(`${method} manifest`, ({ response, next }) => {
        const { writeHead } = response;
        response.writeHead = (status: number, ...rest: never[]) => {
          for (const fields of rest as Record<string, unknown>[]) {
            const digest = fields["Docker-Content-Digest"];
            if (digest !== undefined) fields["Docker-Content-Digest"] = change(String(digest));
          }
          return writeHead.call(response, status, ...rest);
        };
        return next();
      });
    const withoutDigest = (method: "HEAD" | "GET") => withDigests(method, () => []);
    const oddities: Readonly<Record<string, () => (() => void)[]>> = {
      "HEAD says no digest": () => [withoutDigest("HEAD"), withoutDigest("GET")],
      "HEAD is not known": () => [
        registry.on("HEAD manifest", ({ fail }) => fail(405, "UNSUPPORTED")),
        withoutDigest("GET"),
      ],
      "HEAD says its digest twice": () => [
        withDigests("HEAD", (digest) => [digest, digest]),
        registry.on("GET manifest", ({ fail }) => fail(405, "UNSUPPORTED")),
      ],
      "HEAD says two digests": () => [withDigests("HEAD", (digest) => [digest, another])],
      "HEAD says a digest that is none": () => [withDigests("HEAD", () => ["sha256"])],
      "HEAD is redirected at the registry": () => [
        registry.on("HEAD manifest", ({ path, query, send, next }) =>
          query.has("moved") ? next() : send(302, { Location: `${path}?moved` }),
        ),
      ],
      "HEAD and GET are redirected to a storage": () => [
        registry.on("HEAD manifest", ({ path, send }) =>
          send(307, { Location: storage.url + path }),
        ),
        registry.on("GET manifest", ({ path, send }) =>
          send(307, { Location: storage.url + path }),
        ),
        storage.on("* manifest", ({ target, send }) => {
          const stored = registry.repository("app");
          const digest = stored.tags.get(target.reference);
          const found = digest === undefined ? undefined : stored.manifests.get(digest);
          send(found === undefined ? 404 : 200, {}, found?.bytes);
        }),
      ],
    };
    for (const [name, begin] of Object.entries(oddities)) {
      it(`${oddRegistry("immutable-head")}: ${name}`, async () => {
        const params = [{ name: "immutableTags", value: "v*" }];
        proxy.connect("kept", registry.url, { credential, params });
        const client = clientOf(proxy, "kept");
        for (const stop of begin()) undo.defer(stop);
        expect((await push(client, "v1", "first")).status).to.equal(201);
        expect((await push(client, "v1", "first")).status).to.equal(201);
        const again = await push(client, "v1", "second");
        expect(again.status).to.equal(403);
        expect(errorIn(again).message).to.contain("app:v1 is immutable");
        expect((await push(client, "v2", "second")).status).to.equal(201);
      });
    }
  });

  it(oddRegistry("headers-twice"), async () => {
    const pushed = proxy.connect("doubled", registry.url, { credential });
    const client = clientOf(proxy, pushed.name);
    await push(client, "v1", "first");
    const digest = sha256(Buffer.from(manifest("first")));
    undo.defer(
      registry.on("* manifest", ({ send }) =>
        send(200, {
          "Docker-Content-Digest": [digest, digest],
          "Docker-Distribution-Api-Version": ["registry/2.0", "registry/2.0"],
          "OCI-Subject": [digest, another],
          "Cache-Control": ["a", "a"],
        }),
      ),
    );
    for (const method of ["GET", "HEAD", "PUT"]) {
      const { headers } = await client(method, "app/manifests/v1", { body: "" });
      expect(headers, method).to.include({
        "docker-content-digest": digest,
        "docker-distribution-api-version": "registry/2.0",
        "oci-subject": `${digest}, ${another}`,
        "cache-control": "a, a",
      });
    }
  });

  describe("and refuses them early", () => {
    const message = JSON.stringify({ errors: [{ code: "DENIED", message: "early" }] });

    /** Answers a push before its body is read, and resets the connection while that still comes. */
    async function startImpatient(status: number, headers: string): Promise<number> {
      const sockets = new Set<Socket>();
      const fields = `${headers}Content-Length: ${message.length}\r\nConnection: close\r\n`;
      const refuse = (socket: Socket): void => {
        socket.pause();
        socket.write(`HTTP/1.1 ${status} Early\r\n${fields}\r\n${message}`, () =>
          socket.resetAndDestroy(),
        );
      };
      const server: Server = createPlainServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => undefined).once("close", () => sockets.delete(socket));
        socket.on("data", (chunk: Buffer) => {
          const start = chunk.toString("latin1", 0, 4);
          if (start === "GET ") socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
          else if (start === "POST" || start === "PUT ") refuse(socket);
        });
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      undo.defer(() => {
        for (const socket of sockets) socket.destroy();
        server.close();
      });
      return (server.address() as AddressInfo).port;
    }

    for (const [status, passed, headers] of [
      [413, 413, ""],
      [409, 409, ""],
      [429, 429, "Retry-After: 3600\r\n"],
      [403, 403, ""],
      [401, 403, ""],
    ] as const) {
      it(`${oddRegistry("early-refusal")}: ${status}`, async () => {
        proxy.connect("hasty", `http://127.0.0.1:${await startImpatient(status, headers)}`);
        const client = clientOf(proxy, "hasty");
        const digest = sha256(Buffer.from("x"));
        for (let attempt = 0; attempt < 12; attempt += 1) {
          const answer = await client("POST", `app/blobs/uploads/?digest=${digest}`, {
            body: noise("early", 8_000_000),
          });
          expect(answer.status, `attempt ${attempt}`).to.equal(passed);
          if (status === passed && status !== 403) {
            expect(answer.body.toString()).to.equal(message);
          }
          const big = await client("PUT", "app/manifests/1", { body: noise("big", 6_000_000) });
          expect(big.status, `manifest ${attempt}`).to.equal(passed);
        }
      });
    }
  });

  it("and changes the protocol, which ends the push with an error and not never", async () => {
    const server: Server = createPlainServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (chunk: Buffer) => {
        const start = chunk.toString("latin1", 0, 4);
        if (start === "GET ") socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        else if (start === "POST") {
          socket.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
          );
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    undo.defer(() => server.close());
    const { port } = server.address() as AddressInfo;
    proxy.connect("switching", `http://127.0.0.1:${port}`);
    const digest = sha256(Buffer.from("x"));
    const answer = await clientOf(proxy, "switching")(
      "POST",
      `app/blobs/uploads/?digest=${digest}`,
      {
        body: "x",
      },
    );
    expect(answer.status).to.equal(503);
  });

  it(oddRegistry("late-login"), async () => {
    const digest = sha256(Buffer.from("content"));
    const upload = (client: TestClient) =>
      client("POST", `app/blobs/uploads/?digest=${digest}`, { body: "content" });
    // It answers /v2/ to everybody, so nobody knows of its login before the first refusal.
    undo.defer(registry.on("GET ping", ({ json }) => json(200, {}), "before auth"));
    proxy.connect("open", registry.url, { credential });
    const client = clientOf(proxy, "open");
    const first = await upload(client);
    expect(first.status).to.equal(503);
    expect(first.headers["retry-after"]).to.match(/^\d+$/);
    expect(errorIn(first).message).to.contain("required a login only after the content was sent");
    expect((await upload(client)).status).to.equal(201);

    registry.auth.tokens.clear();
    const second = await upload(client);
    expect(second.status).to.equal(503);
    expect(errorIn(second).message).to.contain("revoked its token");
    expect((await upload(client)).status).to.equal(201);
  });
});
