import { Readable } from "node:stream";
import { expect } from "chai";
import fc from "fast-check";
import { Unavailable } from "../../src/connector/platform.ts";
import { type ApiRequest, createApiClient, readLines } from "../../src/kube/api-client.ts";
import { ApiError } from "../../src/kube/api-error.ts";
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

const collect = async (chunks: readonly Uint8Array[], longest = 1000): Promise<string[]> => {
  const lines: string[] = [];
  for await (const line of readLines(Readable.from(chunks), longest)) lines.push(line);
  return lines;
};

describe("readLines()", () => {
  it("finds the same lines however they are cut into chunks", async () => {
    const line = fc.string({ unit: "grapheme" }).map((text) => text.replaceAll("\n", " "));
    await fc.assert(
      fc.asyncProperty(fc.array(line), fc.array(fc.nat(40)), async (lines, cuts) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(""));
        const chunks: Uint8Array[] = [];
        let start = 0;
        for (const length of [...cuts, bytes.length]) {
          chunks.push(bytes.subarray(start, start + length));
          start += length;
        }
        expect(await collect(chunks)).to.deep.equal(lines);
      }),
    );
  });

  it("gives a last line that has no end", async () => {
    expect(await collect([Buffer.from("a\nb")])).to.deep.equal(["a", "b"]);
  });

  it("does not collect an endless line", async () => {
    const chunks = Array.from({ length: 11 }, () => Buffer.alloc(100, "x"));
    const error = await collect(chunks).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(RangeError);
  });
});
