import { once } from "node:events";
import { createServer, globalAgent, request as httpRequest, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { PassThrough, Readable, Writable } from "node:stream";
import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { expect } from "chai";
import { GatheredBody, passUpload } from "../../../src/proxy/relay/upload.ts";
import { BufferBudget } from "../../../src/upstream/http-client/body-buffers.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import type { LocationStyle } from "../../support/fake-registry-uploads.ts";
import {
  answerUploadsEarly,
  redirectUploads,
  resetUploads,
  sendUploadsTo,
  stallUploads,
} from "../../support/hostile-uploads.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import type { PlainResponse } from "../../support/plain-request.ts";
import { openRaw, statusesIn } from "../../support/raw-request.ts";
import { basicAuth, clientOf, errorIn, sealedUpload, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const styles: readonly LocationStyle[] = ["relative", "absolute", "state", "gar", "ghcr"];
const bodyTimeoutMs = 300;

describe("uploads through the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let secure: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    secure = resources.add(await startFakeRegistry({ auth: "basic", tls: true }));
    proxy = resources.add(await startTestProxy({ bodyTimeoutMs }));
    proxy.connect("harbor", registry.url, { credential });
    proxy.connect("other", registry.url, { credential });
    proxy.connect("secure", secure.url, { credential, caCertificates: [secure.ca ?? ""] });
    client = clientOf(proxy, "harbor");
  });
  beforeEach(() => {
    registry.uploadLocation = "relative";
    registry.repositories.clear();
    registry.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const begin = async (send = client): Promise<string> => {
    const begun = await send("POST", "app/blobs/uploads/", { headers: { "content-length": "0" } });
    expect(begun.status).to.equal(202);
    return locationIn(begun, send);
  };
  const port = (): number => Number(proxy.http.split(":")[1]);
  const lastRequest = () => registry.requests.at(-1);
  const held = (digest: string, repository = "app"): Buffer | undefined =>
    registry.repository(repository).blobs.get(digest);

  for (const style of styles) {
    describe(`to a registry whose Locations are ${style}`, () => {
      beforeEach(() => {
        registry.uploadLocation = style;
      });
      const blob = noise(style, 300_000);
      const digest = sha256(blob);

      const done = async (answer: PlainResponse): Promise<void> => {
        expect(answer.status).to.equal(201);
        expect(answer.headers["docker-content-digest"]).to.equal(digest);
        expect(held(digest)?.equals(blob)).to.equal(true);
        const { location } = answer.headers;
        expect(location).to.equal(`${client.base}app/blobs/${digest}`);
        const read = await client("GET", location ?? "");
        expect(read.body.equals(blob)).to.equal(true);
      };

      it("in one PUT", async () => {
        await done(await client("PUT", `${await begin()}&digest=${digest}`, { body: blob }));
        expect(lastPut()?.headers["content-length"]).to.equal(String(blob.length));
      });

      it("in one PUT whose length is not known", async () => {
        const body = Readable.from([blob.subarray(0, 100_000), blob.subarray(100_000)]);
        await done(await client("PUT", `${await begin()}&digest=${digest}`, { body }));
        expect(lastPut()?.headers["transfer-encoding"]).to.equal("chunked");
      });

      it("in one POST", async () => {
        const path = `app/blobs/uploads/?digest=${encodeURIComponent(digest)}`;
        await done(await client("POST", path, { body: blob }));
      });

      it("in a PATCH, and a PUT without a body", async () => {
        const patched = await client("PATCH", await begin(), {
          body: Readable.from([blob]),
          headers: { "content-type": "application/octet-stream" },
        });
        expect(patched.status).to.equal(202);
        expect(patched.headers.range).to.equal(`0-${blob.length - 1}`);
        const put = await client("PUT", `${locationIn(patched)}&digest=${digest}`);
        await done(put);
      });

      it("in chunks", async () => {
        let location = await begin();
        for (let start = 0; start < blob.length; start += 100_000) {
          const body = blob.subarray(start, start + 100_000);
          const headers = { "content-range": `${start}-${start + body.length - 1}` };
          const patched = await client("PATCH", location, { body, headers });
          expect(patched.status).to.equal(202);
          location = locationIn(patched);
        }
        const status = await client("GET", location);
        expect(status.status).to.equal(204);
        expect(status.headers.range).to.equal("0-299999");
        location = locationIn(status);

        const headers = { "content-range": "5-6" };
        const outOfOrder = await client("PATCH", location, { body: "xy", headers });
        expect(outOfOrder.status).to.equal(416);
        expect(outOfOrder.headers.range).to.equal("0-299999");
        await done(await client("PUT", `${locationIn(outOfOrder)}&digest=${digest}`));
      });

      it("and ended", async () => {
        const location = await begin();
        expect((await client("DELETE", location)).status).to.equal(204);
        expect((await client("GET", location)).status).to.equal(404);
      });
    });
  }

  const lastPut = () => registry.requests.findLast(({ method }) => method === "PUT");

  /** An upload's Location, absolute where the registry's is, with the registry's own URL sealed in its query. */
  function locationIn(
    { headers, rawHeaders }: PlainResponse,
    { base, origin }: Pick<TestClient, "base" | "origin"> = client,
  ): string {
    const { location = "" } = headers;
    const isAbsolute = ["absolute", "state"].includes(registry.uploadLocation);
    const begin = `${isAbsolute ? origin : ""}${base}app/blobs/uploads/`;
    expect(location.startsWith(begin)).to.equal(true, location);
    expect(location.slice(begin.length)).to.match(/^[0-9a-f-]{36}\?_state=[A-Za-z0-9_-]+$/);
    expect(headers["docker-upload-uuid"]).to.match(/^[0-9a-f-]{36}$/);
    const all = rawHeaders.join("\n");
    expect(all).to.not.contain(registry.host);
    expect(all).to.not.match(/=%3D|artifacts-uploads|blobs\/upload\//);
    return location;
  }

  it("go over TLS on both sides", async () => {
    const send = clientOf(proxy, "secure", { scheme: "https" });
    const blob = noise("tls", 3_000_000);
    const begun = await send("POST", "app/blobs/uploads/");
    const patched = await send("PATCH", locationIn(begun, send), { body: blob });
    const put = await send("PUT", `${locationIn(patched, send)}&digest=${sha256(blob)}`);
    expect(put.status).to.equal(201);
    expect(secure.repository("app").blobs.get(sha256(blob))?.equals(blob)).to.equal(true);
  });

  it("in the short form stay in it", async () => {
    const headers = { host: "c-harbor.team-a.svc.cluster.local" };
    const begun = await client("POST", "/v2/app/blobs/uploads/", { headers });
    const location = locationIn(begun, { ...client, base: "/v2/" });
    const put = await client("PUT", `${location}&digest=${sha256(Buffer.from("x"))}`, {
      headers,
      body: "x",
    });
    expect(put.status).to.equal(201);
    expect(put.headers.location).to.equal(`/v2/app/blobs/${sha256(Buffer.from("x"))}`);
  });

  it("ask the registry for what it named, byte for byte", async () => {
    registry.uploadLocation = "state";
    const location = await begin();
    await client("PUT", `${location}&digest=sha256%3Aabc&ns=docker.io`, { body: "x" });
    expect(lastPut()?.url).to.match(/\?_state=[^&]+%3D%3D&digest=sha256%3Aabc$/);
  });

  describe("that were begun", () => {
    const digest = sha256(Buffer.from("blob"));
    const finish = (send: TestClient, location: string) =>
      send("PUT", `${location}${location.includes("?") ? "&" : "?"}digest=${digest}`, {
        body: "blob",
      });
    const refused = async (answer: PlainResponse, seen: number): Promise<void> => {
      expect(answer.status).to.equal(404);
      expect(errorIn(answer).code).to.equal("BLOB_UPLOAD_UNKNOWN");
      expect(registry.requests).to.have.length(seen);
    };

    it("by another volume are unknown", async () => {
      const location = await begin();
      const seen = registry.requests.length;
      await refused(await finish(clientOf(proxy, "harbor"), location), seen);
      await refused(await clientOf(proxy, "harbor")("GET", location), seen);
      await refused(await clientOf(proxy, "harbor")("DELETE", location), seen);
    });

    it("in another repository are unknown", async () => {
      const location = await begin();
      const seen = registry.requests.length;
      await refused(await finish(client, location.replace("/app/", "/other/")), seen);
    });

    it("for another connector are unknown", async () => {
      const token = proxy.token("harbor", "other");
      const location = await begin(clientOf(proxy, "harbor", { token }));
      const seen = registry.requests.length;
      const other = location.replace("/connectors/harbor/", "/connectors/other/");
      await refused(await finish(clientOf(proxy, "other", { token }), other), seen);
    });

    it("long ago are unknown", async () => {
      let now = Date.now();
      const later = resources.add(await startTestProxy({ now: () => now, replicaOf: proxy }));
      const location = await begin(clientOf(later, "harbor", client));
      now += 24 * 60 * 60 * 1000 + 1000;
      const answer = await finish(clientOf(later, "harbor", client), location);
      await refused(answer, registry.requests.length);
    });

    it("by nobody are unknown", async () => {
      for (const session of ["x", "..", "A".repeat(200), digest]) {
        for (const path of [session, `1?_state=${session}`]) {
          await refused(await finish(client, `app/blobs/uploads/${path}`), 0);
        }
      }
    });

    it("go on with the same volume's next token", async () => {
      const location = await begin();
      const token = proxy.token("harbor");
      const { identities } = proxy.surroundings;
      const subject = identities.get(client.token)?.subject ?? "";
      const renewed = identities.get(token);
      if (renewed) identities.set(token, { ...renewed, subject });
      const answer = await finish(clientOf(proxy, "harbor", { token }), location);
      expect(answer.status).to.equal(201);
    });

    it("go on at another replica", async () => {
      const replica = resources.add(await startTestProxy({ replicaOf: proxy }));
      const location = await begin();
      const there = clientOf(replica, "harbor", client);
      const patched = await there("PATCH", location, { body: "blob" });
      expect(patched.status).to.equal(202);
      const put = await client("PUT", `${locationIn(patched)}&digest=${digest}`);
      expect(put.status).to.equal(201);
    });
  });

  const digest = sha256(Buffer.from("blob"));

  it("are finished by clients that put a question mark before their digest, whatever the Location has", async () => {
    const put = await client("PUT", `${await begin()}?digest=${digest}`, { body: "blob" });
    expect(put.status).to.equal(201);
    expect(lastRequest()?.url).to.match(/\?digest=sha256:[0-9a-f]{64}$/);
  });

  it("have absolute Locations in the scheme and by the name that the client has used", async () => {
    registry.uploadLocation = "absolute";
    for (const scheme of ["http", "https"] as const) {
      for (const [host, origin] of [
        [undefined, `${scheme}://${proxy[scheme]}`],
        ["127.0.0.1:8443", `${scheme}://127.0.0.1:8443`],
      ] as const) {
        const send = clientOf(proxy, "harbor", { scheme });
        const headers = host === undefined ? {} : { host };
        const begun = await send("POST", "app/blobs/uploads/", { headers });
        const location = String(begun.headers.location);
        expect(location.startsWith(`${origin}${send.base}app/blobs/uploads/`), location).to.equal(
          true,
        );
        const put = await send("PUT", `${location.slice(origin.length)}&digest=${digest}`, {
          body: "blob",
          headers,
        });
        expect(put.status).to.equal(201);
        expect(put.headers.location).to.equal(`${send.base}app/blobs/${digest}`);
      }
    }
  });

  it("that an older version has sealed into the path go on", async () => {
    const location = await begin();
    const [, session = ""] = location.split("?_state=");
    const patched = await client("PATCH", `app/blobs/uploads/${session}`, { body: "bl" });
    expect(patched.status).to.equal(202);
    const put = await client("PUT", `app/blobs/uploads/${session}?digest=${digest}`, {
      body: "ob",
    });
    expect(put.status).to.equal(201);
    expect(locationIn(patched)).to.not.contain(`/${session}`);
  });

  describe("to another host", () => {
    for (const location of [
      "https://elsewhere.test/v2/app/blobs/uploads/1?sig=presigned",
      "//elsewhere.test/v2/app/blobs/uploads/1?sig=presigned",
      "http://127.0.0.1:1/up/1?sig=presigned",
    ]) {
      it(`are refused: ${location}`, async () => {
        undo.defer(sendUploadsTo(registry, location));
        const answer = await client("POST", "app/blobs/uploads/");
        expect(answer.status).to.equal(502);
        expect(errorIn(answer).message).to.contain("directs the upload to");
        expect(answer.body.toString()).to.not.contain("presigned");
        expect(answer.headers.location).to.equal(undefined);
      });
    }
  });

  for (const status of [200, 201, 204]) {
    it(`go on where a registry answers ${status} to a chunk`, async () => {
      // Amazon's says 201, others have said 204.
      undo.defer(
        registry.on("PATCH upload", async ({ next, response }) => {
          const { writeHead } = response;
          response.writeHead = (_status: number, ...rest: never[]) =>
            writeHead.call(response, status, ...rest);
          await next();
        }),
      );
      const patched = await client("PATCH", await begin(), { body: "blob" });
      expect(patched.status).to.equal(status);
      const digest = sha256(Buffer.from("blob"));
      const put = await client("PUT", `${locationIn(patched)}&digest=${digest}`);
      expect(put.status).to.equal(201);
      expect(put.headers.location).to.equal(`${client.base}app/blobs/${digest}`);
    });
  }

  describe("that are redirected with their body", () => {
    it("are for the client to send again, where the registry is the same", async () => {
      const location = await begin();
      undo.defer(redirectUploads(registry, "/artifacts-uploads/2?x=%3D"));
      const answer = await client("PATCH", location, { body: "blob" });
      expect(answer.status).to.equal(307);
      const moved = answer.headers.location ?? "";
      expect(moved).to.match(sealedUpload);
      expect(moved.startsWith(client.base)).to.equal(true, moved);
      await client("PATCH", moved, { body: "blob" });
      expect(lastRequest()?.url).to.equal("/artifacts-uploads/2?x=%3D");
    });

    it("are refused, where it is another", async () => {
      const location = await begin();
      undo.defer(redirectUploads(registry, "https://elsewhere.test/up?sig=presigned"));
      const answer = await client("PATCH", location, { body: "blob" });
      expect(answer.status).to.equal(502);
      expect(answer.body.toString()).to.not.contain("presigned");
    });
  });

  describe("while tokens die", () => {
    it("outlast one token after the other", async () => {
      let now = Date.now();
      const clock = { now: () => now };
      const patient = undo.add(await startFakeRegistry({ auth: "bearer", ...clock }));
      const own = undo.add(await startTestProxy(clock));
      own.connect("patient", patient.url, { credential });
      patient.auth.lifetime = 60;
      const send = clientOf(own, "patient");
      const blob = noise("slow", 500_000);
      let location = locationIn(await send("POST", "app/blobs/uploads/"), send);
      for (let start = 0; start < blob.length; start += 100_000) {
        const body = new PassThrough();
        body.write(blob.subarray(start, start + 50_000));
        const patching = send("PATCH", location, { body });
        await eventually(
          () => patient.requests.at(-1)?.method === "PATCH",
          () => "the chunk has not arrived",
        );
        now += 200_000; // the body takes longer than three tokens live
        body.end(blob.subarray(start + 50_000, start + 100_000));
        const patched = await patching;
        expect(patched.status).to.equal(202);
        location = locationIn(patched, send);
      }
      now += 200_000;
      const put = await send("PUT", `${location}&digest=${sha256(blob)}`);
      expect(put.status).to.equal(201);
      const tokens = patient.requests.filter(({ target }) => target.kind === "token");
      expect(tokens).to.have.length(6);
      expect(
        patient.requests.map(({ status }) => status).filter((status) => status === 401),
      ).to.have.length(1);
    });

    it("are finished with a new one where no body is lost", async () => {
      const location = await begin();
      const patched = await client("PATCH", location, { body: "blob" });
      registry.auth.tokens.clear();
      const digest = sha256(Buffer.from("blob"));
      const put = await client("PUT", `${locationIn(patched)}&digest=${digest}`);
      expect(put.status).to.equal(201);
      const tokens = registry.requests.filter(({ target }) => target.kind === "token");
      expect(tokens).to.have.length(1);
    });

    it("are to be tried again where a body is lost, and then work", async () => {
      const location = await begin();
      registry.auth.tokens.clear();
      const patched = await client("PATCH", location, { body: noise("x", 100_000) });
      expect(patched.status).to.equal(503);
      expect(patched.headers["retry-after"]).to.match(/^\d+$/);
      expect(errorIn(patched)).to.include({ code: "UNAVAILABLE" });
      expect(`${errorIn(patched).message} ${errorIn(patched).detail}`).to.contain("push again");
      expect((await client("PATCH", location, { body: "blob" })).status).to.equal(202);
    });

    it("are denied where the account may not push", async () => {
      registry.auth.rights = (_, { actions }) => actions.filter((action) => action === "pull");
      undo.defer(() => {
        registry.auth.rights = (user, { actions }) => (user === undefined ? [] : actions);
        registry.auth.tokens.clear();
      });
      registry.auth.tokens.clear();
      const answer = await client("POST", "app/blobs/uploads/");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).code).to.equal("DENIED");
      expect(errorIn(answer).message).to.contain("team-a/harbor");
      expect(answer.headers["www-authenticate"]).to.equal(undefined);
    });
  });

  it("that may not be ended are left alone", async () => {
    for (const status of [401, 403]) {
      const location = await begin();
      const stop = registry.on("DELETE upload", ({ fail }) => fail(status, "DENIED"));
      const answer = await client("DELETE", location);
      stop();
      expect(answer.status).to.equal(204);
      expect(answer.body).to.have.length(0);
    }
    // Quay gives no token where `delete` is among what is asked for.
    const other = clientOf(proxy, "other");
    const location = await begin(other);
    const noDelete = registry.on("GET token", ({ query, fail, next }) =>
      query.get("scope")?.includes("delete") ? fail(403, "DENIED") : next(),
    );
    const answer = await other("DELETE", location);
    noDelete();
    expect(answer.status).to.equal(204);
    expect((await other("GET", location)).status).to.equal(204);
  });

  describe("with Expect: 100-continue", () => {
    const head = (path: string, authorization: string, length = 4): string =>
      `PUT ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n` +
      `Content-Length: ${length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n`;
    const digest = sha256(Buffer.from("blob"));

    it("hear 100 once they are let in", async () => {
      const bodies: readonly (readonly [string, string])[] = [
        [`${await begin()}&digest=${digest}`, "blob"],
        [`${client.base}app/manifests/1`, "{  }"],
      ];
      for (const [path, body] of bodies) {
        const connection = undo.add(await openRaw({ port: port() }));
        connection.send(head(path, client.authorization));
        await connection.waitFor(/^HTTP\/1\.1 100 Continue\r\n\r\n/);
        connection.send(body);
        await connection.waitFor(/HTTP\/1\.1 201 /);
        expect(statusesIn(connection.received())).to.deep.equal([100, 201]);
        expect(lastRequest()?.headers.expect).to.equal(undefined);
      }
    });

    it("hear no 100 where they are not let in", async () => {
      const session = await begin();
      const refusals: readonly (readonly [string, string, number])[] = [
        [session, basicAuth("wrong"), 401],
        [`${client.base}app/blobs/uploads/x`, client.authorization, 404],
        [`${client.base}App/blobs/uploads/x`, client.authorization, 404],
        [`${client.base}app/tags/list`, client.authorization, 405],
        [session.replace("harbor", "other"), client.authorization, 403],
      ];
      for (const [path, authorization, status] of refusals) {
        const connection = undo.add(await openRaw({ port: port() }));
        connection.send(head(path, authorization));
        await connection.waitFor(/\r\n\r\n\{/);
        expect(statusesIn(connection.received())).to.deep.equal([status]);
      }
    });

    it("hear no 100 where the registry lets nobody in", async () => {
      const location = await begin();
      const stop = registry.on("* token", ({ fail }) => fail(401, "UNAUTHORIZED"), "before auth");
      const lonely = resources.add(await startTestProxy({ replicaOf: proxy }));
      const connection = undo.add(await openRaw({ port: Number(lonely.http.split(":")[1]) }));
      connection.send(head(location, client.authorization));
      await connection.waitFor(/\r\n\r\n\{/);
      stop();
      expect(statusesIn(connection.received())).to.deep.equal([403]);
    });

    it("and any other expectation are refused", async () => {
      const answer = await client("GET", "app/tags/list", { headers: { expect: "200-ok" } });
      expect(answer.status).to.equal(417);
      expect(errorIn(answer).code).to.equal("UNSUPPORTED");
    });
  });

  describe("that are answered early", () => {
    it("tell the client, and end at the registry", async () => {
      const location = await begin();
      let early: IncomingMessage | undefined;
      undo.defer(answerUploadsEarly(registry, 413));
      undo.defer(
        registry.on("PATCH upload", ({ request, next }) => {
          early = request;
          return next();
        }),
      );
      const answer = await client("PATCH", location, { body: noise("early", 20_000_000) });
      expect(answer.status).to.equal(413);
      expect(errorIn({ ...answer, headers: { "content-type": "application/json" } })).to.include({
        code: "DENIED",
        message: "early",
      });
      early?.resume(); // it notices the end only while it reads
      await eventually(
        () => early?.socket.destroyed,
        () => "the registry's connection is still open",
      );
    });

    it("tell the client in any case, where the registry closes its side", async () => {
      const location = await begin();
      undo.defer(answerUploadsEarly(registry, 413, "close"));
      const answer = await client("PATCH", location, { body: noise("early", 20_000_000) });
      // The kernel may throw away an answer when the connection is reset.
      expect(answer.status).to.be.oneOf([413, 503]);
    });
  });

  describe("that stop in the middle", () => {
    const sendPart = async (path: string, method = "PATCH") => {
      const connection = undo.add(await openRaw({ port: port() }));
      connection.send(
        `${method} ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\n` +
          `Content-Length: 1000\r\n\r\n${"x".repeat(500)}`,
      );
      return connection;
    };
    const arrived = () =>
      eventually(
        () => registry.requests.find(({ method, bodyLength }) => method === "PATCH" && bodyLength),
        () => "nothing has arrived",
      );
    it("since the client is gone, end at the registry at once", async () => {
      const location = await begin();
      const ended = aborted("PATCH upload");
      const connection = await sendPart(location);
      await arrived();
      connection.reset();
      await ended;
    });

    it("since the client is gone before there is a token, are not begun", async () => {
      const passed = Promise.withResolvers<unknown>();
      const server = createServer((request, response) => {
        response.once("close", () => {
          const url = new URL(registry.url);
          const to = { url, headers: {}, agent: globalAgent, budget: new BufferBudget(0) };
          const options = { request, response, ...to, bodyTimeoutMs };
          passed.resolve(passUpload(options).catch((error: Error) => error.name));
        });
        request.socket.destroy();
      });
      server.listen(0, "127.0.0.1");
      undo.defer(() => server.close());
      await once(server, "listening");
      const { port: own } = server.address() as AddressInfo;
      undo.add(await openRaw({ port: own })).send("PUT / HTTP/1.1\r\nHost: x\r\n\r\n");
      expect(await passed.promise).to.equal("ClientGone");
    });

    it("since the client waits, are ended", async () => {
      const location = await begin();
      const ended = aborted("PATCH upload");
      const connection = await sendPart(location);
      await connection.closed;
      await ended;
      expect(connection.received()).to.equal("");
    });

    it("since the client waits with half a manifest, are ended", async () => {
      const connection = await sendPart(`${client.base}app/manifests/1`, "PUT");
      await connection.closed;
      expect(lastRequest()?.target.kind).to.not.equal("manifest");
      expect(proxy.log()).to.not.contain("unexpected");
    });

    it("since the registry is gone, tell the client", async () => {
      const location = await begin();
      undo.defer(resetUploads(registry, 1000));
      const host = "c-harbor.team-a.svc.cluster.local";
      const answer = await client("PATCH", location.replace(client.base, "/v2/"), {
        body: noise("reset", 5_000_000),
        headers: { host },
      });
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.contain("closed the connection");
      expect(proxy.log()).to.contain('"method":"PATCH","connector":"team-a/harbor"');
    });

    it("since the registry waits, go on with it", async () => {
      const location = await begin();
      undo.defer(
        registry.on("PATCH upload", async ({ next }) => {
          await sleep(bodyTimeoutMs * 4);
          await next();
        }),
      );
      const answer = await client("PATCH", location, { body: noise("stall", 20_000_000) });
      expect(answer.status).to.equal(202);
      expect(answer.headers.range).to.equal("0-19999999");
    });

    it("since the registry takes its time to answer, go on with it", async () => {
      const location = await begin();
      const digest = sha256(Buffer.from("blob"));
      undo.defer(
        registry.on("PUT upload", async ({ next }) => {
          await sleep(bodyTimeoutMs * 4);
          await next();
        }),
      );
      const put = await client("PUT", `${location}&digest=${digest}`, { body: "blob" });
      expect(put.status).to.equal(201);
    });

    function aborted(route: "PATCH upload"): Promise<unknown> {
      return new Promise((resolve) => {
        undo.defer(
          registry.on(route, ({ request, next }) => {
            request.once("close", () => resolve(request.complete));
            return next();
          }),
        );
      }).then((complete) => expect(complete).to.equal(false));
    }
  });

  it("are held back while the registry is slower", async () => {
    const location = await begin();
    undo.defer(stallUploads(registry, 1000));
    const request = httpRequest({
      host: "127.0.0.1",
      port: port(),
      path: location,
      method: "PATCH",
      headers: { authorization: client.authorization },
    });
    undo.defer(() => request.destroy());
    request.on("error", () => {});
    let sent = 0;
    const chunk = noise("slow", 1_000_000);
    for (; sent < 100_000_000; sent += chunk.length) {
      if (request.write(chunk)) continue;
      const drained = await Promise.race([once(request, "drain"), sleep(1000, "blocked")]);
      if (drained === "blocked") break;
    }
    // What the kernel's buffers hold, at both connections.
    expect(sent).to.be.below(40_000_000);
  });
});

const chunkSize = 16 * 1024;

describe("GatheredBody", () => {
  let budget: BufferBudget;
  let request: PassThrough;
  let written: Buffer[];
  let finishWrites: (() => void)[];
  let to: Writable;

  beforeEach(() => {
    budget = new BufferBudget(4 * chunkSize); // two buffers of twice a chunk, for one body
    request = new PassThrough({ highWaterMark: 100 * chunkSize });
    written = [];
    finishWrites = [];
    to = new Writable({
      write(chunk, _encoding, done) {
        written.push(Buffer.from(chunk));
        finishWrites.push(done);
      },
    });
    new GatheredBody(request, budget).pipe(to);
  });
  afterEach(() => {
    request.destroy();
    to.destroy();
  });

  const chunks = (count: number): Buffer[] =>
    Array.from({ length: count }, (_, index) => Buffer.alloc(chunkSize, index));
  const finishAll = async (): Promise<void> => {
    while (finishWrites.length > 0) {
      finishWrites.shift()?.();
      await turn();
    }
  };
  const sizes = () => written.map(({ length }) => length / chunkSize);

  it("writes at once what comes in one turn", async () => {
    for (const chunk of ["one", "two", "three"]) request.write(chunk);
    await turn();
    expect(String(written)).to.equal("onetwothree");
  });

  it("holds back what does not fit until the other side has taken some", async () => {
    for (const chunk of chunks(10)) request.write(chunk);
    await turn();
    await turn();
    expect(request.isPaused()).to.equal(true);
    expect(request.readableLength).to.equal(6 * chunkSize);
    await finishAll();
    expect(sizes()).to.deep.equal([2, 2, 2, 2, 2]);
    expect(Buffer.concat(written)).to.deep.equal(Buffer.concat(chunks(10)));
  });

  it("writes what is left before it ends", async () => {
    request.end("short");
    await turn();
    await finishAll();
    expect(String(written)).to.equal("short");
    expect(to.writableFinished).to.equal(true);
  });

  for (const [how, end] of [
    ["whole", () => request.end("x")],
    ["cut by the other side", () => to.destroy()],
  ] as const) {
    it(`leaves its share of the memory to others once it is ${how}`, async () => {
      expect(budget.bufferBytes).to.equal(2 * chunkSize);
      budget.addBody();
      expect(budget.bufferBytes).to.equal(chunkSize);
      end();
      await turn();
      await finishAll();
      expect(budget.bufferBytes).to.equal(2 * chunkSize);
    });
  }
});
