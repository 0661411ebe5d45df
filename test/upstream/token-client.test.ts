import { expect } from "chai";
import { Agent } from "undici";
import { describeError } from "../../src/log.ts";
import { fetchToken, type TokenRequest } from "../../src/upstream/token-client.ts";
import type { UpstreamError, UpstreamFault } from "../../src/upstream/upstream-error.ts";
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
  const dispatcher = new Agent();

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    elsewhere = resources.add(await startFakeRegistry({ auth: "bearer" }));
    resources.defer(() => dispatcher.destroy());
  });
  afterEach(undo.stop);
  after(resources.stop);

  const wanted = (more: Partial<TokenRequest> = {}): TokenRequest => ({
    realm: new URL(`${registry.url}/token`),
    service: "fake-registry",
    scopes: ["repository:app:pull"],
    credential,
    dispatcher,
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

  it("follows no redirect, since the password would go along", async () => {
    for (const location of [`${elsewhere.url}/token`, "/token?again"]) {
      const stop = tokenEndpoint.redirects(registry, location);
      registry.requests.length = 0;
      expect(await failure()).to.include({ fault: "AnswerInvalid" });
      expect(registry.requests).to.have.length(1);
      stop();
    }
    expect(elsewhere.requests).to.deep.equal([]);
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
