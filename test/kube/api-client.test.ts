import { Readable } from "node:stream";
import { expect } from "chai";
import fc from "fast-check";
import { Unavailable } from "../../src/connector/platform.ts";
import { type ApiRequest, createApiClient, readLines } from "../../src/kube/api-client.ts";
import { ApiError } from "../../src/kube/api-error.ts";
import type { SkimmedEvent } from "../../src/kube/skim-event.ts";
import { cleanup } from "../support/cleanup.ts";
import {
  type FakeAnswer,
  type FakeApiServer,
  startFakeApiServer,
  statusOf,
} from "./fake-api-server.ts";

const path = "/api/v1/namespaces/ns/secrets/s";

describe("createApiClient()", () => {
  const resources = cleanup();
  let server: FakeApiServer;

  before(async () => {
    server = resources.add(await startFakeApiServer());
  });
  beforeEach(() => {
    server.intercept = undefined;
  });
  after(resources.stop);

  const ask = (call: ApiRequest, timeoutMs = 5_000): Promise<unknown> =>
    createApiClient({ access: server.access, timeoutMs }).request(call);
  const failure = (call: ApiRequest, timeoutMs?: number): Promise<unknown> =>
    ask(call, timeoutMs).then(
      () => expect.fail("it was answered"),
      (error: unknown) => error,
    );

  it("sends what it is given, and gives back what it gets", async () => {
    server.intercept = () => ({ status: 201, body: { made: true } });
    const body = { kind: "Secret", text: "ä" };
    const query = { fieldManager: "connectors", force: "true" };
    const contentType = "application/apply-patch+yaml";
    const answer = await ask({ method: "PATCH", path, query, body, contentType });
    expect(answer).to.deep.equal({ made: true });
    const request = server.requests.at(-1);
    expect(request).to.deep.include({ method: "PATCH", path, body });
    expect(Object.fromEntries(request?.query ?? [])).to.deep.equal(query);
  });

  it("sends a body of each method as one, and nothing behind it", async () => {
    server.intercept = () => ({ status: 200 });
    for (const method of ["POST", "PATCH", "DELETE"] as const) {
      const body = { preconditions: { uid: method } };
      await ask({ method, path, body });
      await ask({ path });
      expect(server.requests.at(-2)).to.deep.include({ method, body });
    }
  });

  it("keeps the path of the API server's own URL", async () => {
    const proxied = { ...server.access, server: new URL("/clusters/a/", server.access.server) };
    server.intercept = () => ({ status: 200 });
    await createApiClient({ access: proxied }).request({ path });
    expect(server.requests.at(-1)?.path).to.equal(`/clusters/a${path}`);
  });

  for (const status of [400, 403, 404, 409, 410, 422]) {
    it(`takes ${status} for a refusal`, async () => {
      server.intercept = () => ({ status, body: statusOf(status, "we said no") });
      const error = await failure({ path });
      expect(error).to.be.instanceOf(ApiError).and.include({ status, message: "we said no" });
    });
  }

  const away: readonly (readonly [string, FakeAnswer])[] = [
    ["401, which is about ourselves", { status: 401, body: statusOf(401, "Unauthorized") }],
    ["429", { status: 429, body: statusOf(429, "too many requests") }],
    ["500", { status: 500, body: "plain text" }],
    ["503", { status: 503 }],
    ["a connection that is cut", "cut"],
    ["no answer", "silence"],
  ];
  for (const [what, answer] of away) {
    it(`takes ${what} for an API server that is away`, async () => {
      server.intercept = () => answer;
      expect(await failure({ path }, 100)).to.be.instanceOf(Unavailable);
    });
  }

  it("knows when a connection failed, and not when a request was refused", async () => {
    const client = createApiClient({ access: server.access });
    server.intercept = () => ({ status: 403, body: {} });
    await client.request({ path }).catch(() => undefined);
    expect(client.lastFailureAt()).to.equal(Number.NEGATIVE_INFINITY);
    const gone = { ...server.access, server: new URL("http://127.0.0.1:1") };
    const elsewhere = createApiClient({ access: gone });
    const before = performance.now();
    await elsewhere.request({ path }).catch(() => undefined);
    expect(elsewhere.lastFailureAt()).to.be.within(before, performance.now());
  });

  it("says how it can't reach an API server", async () => {
    await server.goAway();
    const error = await failure({ path });
    await server.comeBack();
    expect(error).to.be.instanceOf(Unavailable);
    expect((error as Error).message).to.match(/^the API server can't be reached: .*ECONNREFUSED/);
  });

  it("tells of a watch that is cut when somebody reads it, and not before", async () => {
    const client = createApiClient({ access: server.access });
    const { signal } = new AbortController();
    const call = { path: "/api/v1/secrets", query: {}, signal, idleTimeoutMs: 5_000 };
    const events = await client.watch(call);
    server.cut();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await events.next().catch((e: unknown) => e)).to.be.instanceOf(Unavailable);
  });

  it("shows nothing of an answer that is no JSON", async () => {
    server.intercept = () => ({ status: 422, body: "password=hunter2" });
    expect(String(await failure({ path }))).not.to.contain("hunter2");
  });

  it("is not confused by a long message", async () => {
    server.intercept = () => ({ status: 422, body: statusOf(422, "x".repeat(100_000)) });
    expect((await failure({ path })) as Error)
      .to.have.property("message")
      .with.length.below(2_000);
  });
});

const collect = async (
  chunks: readonly Uint8Array[],
  maxLineBytes = 1000,
  maxSkimmedBytes = 1000,
): Promise<(string | SkimmedEvent | undefined)[]> => {
  const lines: (string | SkimmedEvent | undefined)[] = [];
  for await (const line of readLines(Readable.from(chunks), maxLineBytes, maxSkimmedBytes)) {
    lines.push(line);
  }
  return lines;
};

/** The bytes in chunks of random lengths. */
const cutInto = (bytes: Buffer, cuts: readonly number[]): Uint8Array[] => {
  const chunks: Uint8Array[] = [];
  let start = 0;
  for (const length of [...cuts, bytes.length]) {
    chunks.push(bytes.subarray(start, start + length));
    start += length;
  }
  return chunks;
};

describe("readLines()", () => {
  it("finds the same lines however they are cut into chunks", async () => {
    const line = fc.string({ unit: "grapheme" }).map((text) => text.replaceAll("\n", " "));
    await fc.assert(
      fc.asyncProperty(fc.array(line), fc.array(fc.nat(40)), async (lines, cuts) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(""));
        expect(await collect(cutInto(bytes, cuts))).to.deep.equal(lines);
      }),
    );
  });

  it("gives a last line that has no end", async () => {
    expect(await collect([Buffer.from("a\nb")])).to.deep.equal(["a", "b"]);
  });

  it("skims a long event for the metadata of its object, however it is cut", async () => {
    const metadata = fc.record({
      annotations: fc.dictionary(fc.string(), fc.string()),
      generation: fc.nat(),
      labels: fc.object(),
      managedFields: fc.array(fc.object()),
      name: fc.string({ minLength: 1, unit: "grapheme", maxLength: 40 }),
      namespace: fc.string({ maxLength: 40 }),
      resourceVersion: fc.string(),
      uid: fc.uuid(),
    });
    const cases = fc.tuple(metadata, fc.jsonValue(), fc.array(fc.nat(40)));
    await fc.assert(
      fc.asyncProperty(cases, async ([found, spec, cuts]) => {
        const event = { type: "MODIFIED", object: { apiVersion: "v1", metadata: found, spec } };
        const bytes = Buffer.from(`${JSON.stringify(event)}\n{}\n`);
        const [skimmed, next] = await collect(cutInto(bytes, cuts), 10, bytes.length);
        const { name, namespace, uid, resourceVersion, generation } = found;
        expect(skimmed).to.deep.equal({
          type: "MODIFIED",
          object: {
            metadata: {
              name,
              namespace,
              uid,
              resourceVersion,
              ...(generation === 0 ? {} : { generation }),
            },
          },
          bytes: Buffer.byteLength(JSON.stringify(event)),
        });
        expect(next).to.equal("{}");
      }),
    );
  });

  it("gives nothing for a long line that is no event", async () => {
    const lines = [`"${"x".repeat(50)}"`, "[".repeat(50), `{"type":{"type":"${"x".repeat(40)}"}}`];
    for (const line of lines) {
      expect(await collect([Buffer.from(`${line}\n`)], 10)).to.deep.equal([undefined]);
    }
  });

  it("does not collect an endless line", async () => {
    const chunks = Array.from({ length: 11 }, () => Buffer.alloc(100, "x"));
    const error = await collect(chunks).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(RangeError);
  });
});
