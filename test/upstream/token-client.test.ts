import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { expect } from "chai";
import { describeError } from "../../src/log.ts";
import type { SendRequest } from "../../src/upstream/http-client/http-exchange.ts";
import { fetchToken, type TokenRequest } from "../../src/upstream/token-client.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import type { UpstreamError, UpstreamFault } from "../../src/upstream/upstream-error.ts";
import { testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { tokenEndpoint, type Undo } from "../support/hostile-auth.ts";

const credential = { username: "alice", password: "secret-of-alice" };

describe("the client of registries' token servers", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let elsewhere: FakeRegistry;
  let send: SendRequest;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    elsewhere = resources.add(await startFakeRegistry({ auth: "bearer" }));
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const none = { credential: undefined, caCertificates: [] };
    send = upstreams.of(testConnector("harbor", registry.url), none).send;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const wanted = (more: Partial<TokenRequest> = {}): TokenRequest => ({
    realm: new URL(`${registry.url}/token`),
    service: "fake-registry",
    scopes: ["repository:app:pull"],
    credential,
    send,
    ...more,
  });
  const failure = async (more?: Partial<TokenRequest>): Promise<UpstreamError> => {
    try {
      await fetchToken(wanted(more));
    } catch (error) {
      expect(describeError(error)).to.not.contain("secret-of-alice");
      return error as UpstreamError;
    }
    throw new Error("there was a token");
  };
  const answer = (value: unknown): Undo => tokenEndpoint.answers(registry, value);

  it("gets tokens", async () => {
    undo.defer(answer({ token: "a.b-c", expires_in: 300, issued_at: "1970-01-01T00:00:00Z" }));
    expect(await fetchToken(wanted())).to.deep.equal({ value: "a.b-c", lifetimeSeconds: 300 });
  });

  it("keeps the query of a realm", async () => {
    registry.requests.length = 0;
    await fetchToken(wanted({ realm: new URL(`${registry.url}/token?a=b%20c&service=odd`) }));
    const { searchParams } = new URL(registry.requests[0]?.url ?? "", registry.url);
    expect(searchParams.get("a")).to.equal("b c");
    expect(searchParams.getAll("service")).to.deep.equal(["fake-registry"]);
  });

  it("sends a password in UTF-8", async () => {
    registry.auth.users.set("jürgen", "pässwörd: ✓");
    const token = await fetchToken(
      wanted({ credential: { username: "jürgen", password: "pässwörd: ✓" } }),
    );
    expect(token.value).to.match(/^token-/);
  });

  const answers: readonly (readonly [string, unknown])[] = [
    ["nothing", {}],
    ["no object", ["token"]],
    ["null", null],
    ["a token that is no text", { token: 1 }],
    ["an empty token", { token: "" }],
    ["a token that would end a header", { token: "a\r\nX-Other: b" }],
    ["a token with a space", { token: "a b" }],
    ["a token that is no ASCII", { token: "ü" }],
    ["an inherited token", JSON.parse('{"__proto__":{"token":"x"}}')],
  ];
  for (const [name, value] of answers) {
    it(`takes ${name} for no token`, async () => {
      undo.defer(answer(value));
      const error = await failure();
      expect(error).to.include({ fault: "AnswerInvalid" });
      expect(error.message).to.equal(
        `the token server ${registry.host} answered 200 without a token`,
      );
    });
  }

  it("shows nothing of an answer that is no JSON", async () => {
    undo.defer(tokenEndpoint.notJson(registry, "secret-in-answer"));
    const error = await failure();
    expect(error.fault).to.equal("AnswerInvalid");
    expect(JSON.stringify(error) + describeError(error)).to.not.contain("secret-in-answer");
  });

  it("ends an answer that never ends", async () => {
    undo.defer(tokenEndpoint.endless(registry));
    expect(await failure()).to.include({ fault: "AnswerInvalid" });
  });

  const statuses: readonly (readonly [number, UpstreamFault, string])[] = [
    [401, "AuthenticationFailed", "refused the connector's login (401)"],
    [403, "AccessDenied", "refused the connector's login (403)"],
    [400, "AccessDenied", "refused the connector's login (400)"],
    [404, "AnswerInvalid", "answered 404 instead of a token"],
    [204, "AnswerInvalid", "answered 204 instead of a token"],
    [429, "ConnectionFailed", "answered 429"],
    [500, "ConnectionFailed", "answered 500"],
    [503, "ConnectionFailed", "answered 503"],
  ];
  for (const [given, fault, message] of statuses) {
    it(`makes ${fault} of ${given}`, async () => {
      undo.defer(tokenEndpoint.fails(registry, given));
      const error = await failure();
      expect(error.fault).to.equal(fault);
      expect(error.message).to.contain(message);
    });
  }

  it("says where a login belongs", async () => {
    undo.defer(tokenEndpoint.fails(registry, 401));
    expect((await failure()).detail).to.contain("Secret");
    expect((await failure({ credential: undefined })).detail).to.contain("spec.auth.secretRef");
  });

  describe("follows redirects", () => {
    const chain = (status: number, length: number): Undo =>
      registry.on("GET token", ({ query, send, next }) => {
        const step = Number(query.get("step"));
        if (step >= length) return next();
        return send(status, {
          Location: `?${query}&step=${step + 1}`.replace(/&step=\d+(?=&)/, ""),
        });
      });

    for (const status of [301, 302, 303, 307, 308]) {
      it(`by ${status} within the origin, three times and no more`, async () => {
        undo.defer(chain(status, 3));
        registry.requests.length = 0;
        expect((await fetchToken(wanted())).value).to.match(/^token-/);
        expect(registry.requests).to.have.length(4);
        const logins = registry.requests.map(({ headers }) => headers.authorization);
        expect(new Set(logins).size).to.equal(1);
        undo.defer(chain(status, 4));
        registry.requests.length = 0;
        const error = await failure();
        expect(error.fault).to.equal("AnswerInvalid");
        expect(error.message).to.contain("redirected 4 times; 3 are the most");
        expect(registry.requests).to.have.length(4);
      });
    }

    it("to no other origin, since the password would go along", async () => {
      for (const location of [
        `${elsewhere.url}/token`,
        `//${elsewhere.host}/token`,
        `https://${registry.host}/token`,
        `http://user@${registry.host}/token`,
        `http://127.0.0.1\\@${elsewhere.host}/token`,
        "http://",
        "file:///etc/passwd",
      ]) {
        undo.defer(tokenEndpoint.redirects(registry, location));
        registry.requests.length = 0;
        const error = await failure();
        expect(error.fault, location).to.equal("AnswerInvalid");
        expect(error.message).to.contain(`does not stay at ${registry.url}`);
        expect(registry.requests, location).to.have.length(1);
      }
      expect(elsewhere.requests).to.deep.equal([]);
    });

    it("but takes one without a Location for an answer without a token", async () => {
      undo.defer(tokenEndpoint.fails(registry, 302));
      expect((await failure()).message).to.contain("answered 302 instead of a token");
    });
  });

  describe("reads answers in codings that nobody has asked for", () => {
    const sent = (encoding: string | string[], body: Buffer): Undo =>
      registry.on("GET token", ({ send }) => send(200, { "Content-Encoding": encoding }, body));
    const plain = Buffer.from('{"token":"t0k3n"}');
    const codings: readonly (readonly [string, string | string[], Buffer])[] = [
      ["gzip", "gzip", gzipSync(plain)],
      ["gzip by its old name", "X-GZIP", gzipSync(plain)],
      ["deflate", "deflate", deflateSync(plain)],
      ["deflate without its wrapper", "deflate", deflateRawSync(plain)],
      ["br", "br", brotliCompressSync(plain)],
      ["identity", "identity", plain],
      ["two in one header", "deflate, gzip", gzipSync(deflateSync(plain))],
      ["two in two headers", ["br", "gzip"], gzipSync(brotliCompressSync(plain))],
      ["an empty name", "", plain],
      ["no coding, and a byte order mark", "identity", Buffer.from(`\ufeff${plain}`)],
    ];
    for (const [name, encoding, body] of codings) {
      it(name, async () => {
        undo.defer(sent(encoding, body));
        expect(await fetchToken(wanted())).to.deep.equal({ value: "t0k3n", lifetimeSeconds: 60 });
      });
    }

    const large = Buffer.from(JSON.stringify({ token: "t0k3n", padding: " ".repeat(300_000) }));
    const bomb = "with more than 256 KiB, once it is decompressed";
    const damaged = "with a body that is not in the content coding that it names";
    const unreadable: readonly (readonly [string, string, Buffer, string])[] = [
      ["gzip that grows beyond the bound", "gzip", gzipSync(large), bomb],
      ["deflate that grows beyond the bound", "deflate", deflateSync(large), bomb],
      ["br that grows beyond the bound", "br", brotliCompressSync(large), bomb],
      [
        "two that grow beyond the bound",
        "gzip, gzip",
        gzipSync(gzipSync(Buffer.alloc(9_000_000))),
        bomb,
      ],
      [
        "three of them",
        "gzip, gzip, gzip",
        gzipSync(gzipSync(gzipSync(plain))),
        "in more than two content codings",
      ],
      ["gzip that is none", "gzip", plain, damaged],
      ["gzip that is cut", "gzip", gzipSync(plain).subarray(0, 20), damaged],
      ["an unknown one", "lzma", plain, "in a content coding that is not known"],
      ["more than the bound", "identity", large, "with more than 256 KiB"],
    ];
    for (const [name, encoding, body, problem] of unreadable) {
      it(`but not ${name}`, async () => {
        undo.defer(sent(encoding, body));
        const error = await failure();
        expect(error.fault).to.equal("AnswerInvalid");
        expect(error.message).to.contain(`answered 200 ${problem}`);
        expect(describeError(error)).to.not.contain("t0k3n");
      });
    }
  });

  describe("reads answers as strictly as those of registries", () => {
    const raw = (head: string, body: string): Undo =>
      registry.on("GET token", ({ response }) => {
        response.socket?.end(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n${body}`);
      });
    const plain = '{"token":"t0k3n"}';
    const length = `Content-Length: ${plain.length}`;
    const readable: readonly (readonly [string, string, string])[] = [
      ["equal Content-Lengths in two headers", `${length}\r\n${length}`, plain],
      ["equal Content-Lengths in one header", `${length}, ${plain.length}`, plain],
      ["chunks", "Transfer-Encoding: chunked", `11\r\n${plain}\r\n0\r\n\r\n`],
      ["a body that ends with its connection", "Connection: close", plain],
    ];
    for (const [name, head, body] of readable) {
      it(name, async () => {
        undo.defer(raw(head, body));
        expect(await fetchToken(wanted())).to.deep.equal({ value: "t0k3n", lifetimeSeconds: 60 });
      });
    }

    it("but not Content-Lengths that differ", async () => {
      undo.defer(raw(`${length}\r\nContent-Length: 2`, plain));
      const error = await failure();
      expect(error.fault).to.equal("AnswerInvalid");
      expect(error.message).to.contain("it has several Content-Lengths, which differ");
    });
  });

  describe("does not wait for a body that nobody reads", () => {
    const begun = (status: number, headers: Readonly<Record<string, string>>): Undo =>
      registry.on("GET token", ({ query, response, next }) => {
        if (query.has("redirected")) return next();
        response.writeHead(status, { "content-length": "100", ...headers });
        response.write("x");
        return undefined;
      });
    const patience = (): AbortSignal => AbortSignal.timeout(10_000);

    it("of a refusal", async () => {
      undo.defer(begun(401, {}));
      const error = await fetchToken(wanted(), patience()).catch((reason: unknown) => reason);
      expect(error).to.include({ fault: "AuthenticationFailed" });
    });

    it("of a redirect", async () => {
      undo.defer(begun(307, { location: "?redirected=1" }));
      expect((await fetchToken(wanted(), patience())).value).to.match(/^token-/);
    });
  });

  it("asks again where a kept connection was closed just then", async () => {
    await fetchToken(wanted());
    let isClosed = false;
    undo.defer(
      registry.on("GET token", ({ request, next }) => {
        if (isClosed) return next();
        isClosed = true;
        request.socket.destroy();
        return undefined;
      }),
    );
    expect((await fetchToken(wanted())).value).to.match(/^token-/);
  });

  it("takes tokens of up to 64 KiB", async () => {
    for (const length of [1, 16_384, 65_536]) {
      const stop = answer({ token: "x".repeat(length), access_token: "x".repeat(length) });
      expect((await fetchToken(wanted())).value).to.have.length(length);
      stop();
    }
    undo.defer(answer({ token: "x".repeat(65_537) }));
    const error = await failure();
    expect(error.fault).to.equal("AnswerInvalid");
    expect(error.message).to.contain("a token of 65537 bytes; 65536 are the most");
  });

  it("says that nothing listens", async () => {
    const gone = await startFakeRegistry();
    await gone.stop();
    const error = await failure({ realm: new URL(`${gone.url}/token`) });
    expect(error.fault).to.equal("ConnectionFailed");
    expect(error.message).to.equal(
      `the token server ${gone.host} can't be reached: nothing listens there`,
    );
  });
});
