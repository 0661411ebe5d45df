import { expect } from "chai";
import {
  type Identity,
  type Result,
  Unavailable,
  type VerifyToken,
} from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createExpiredTokenVerifier, createTokenReviewer } from "../../src/kube/verify-token.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "./fake-api-server.ts";

const audience = "connectors-proxy";
const epoch = 1_800_000_000_000;

const tokenWith = (claims: object): string =>
  ["{}", JSON.stringify(claims), "signature"]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");
const goodToken = tokenWith({ aud: [audience], exp: epoch / 1000 + 600 });

const user = {
  username: "system:serviceaccount:team-a:builder",
  groups: ["system:serviceaccounts", "system:authenticated"],
  extra: {
    "authentication.kubernetes.io/pod-name": ["build-1"],
    "authentication.kubernetes.io/pod-uid": ["pod-uid-1"],
  },
};

describe("createTokenReviewer()", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let verify: VerifyToken;
  let time = epoch;
  let reviews = 0;
  let status: object = {};

  before(async () => {
    server = resources.add(await startFakeApiServer());
  });
  beforeEach(() => {
    time = epoch;
    reviews = 0;
    status = { authenticated: true, audiences: [audience], user };
    server.intercept = ({ path }) => {
      if (!path.endsWith("/tokenreviews")) return undefined;
      reviews += 1;
      return { status: 201, body: { status } };
    };
    const client = createApiClient({ access: server.access });
    verify = createTokenReviewer({ client, audience, now: () => time });
  });
  after(resources.stop);

  const reasonOf = (answer: Result<Identity>): string =>
    answer.ok ? expect.fail("it was accepted") : answer.reason;

  it("says who holds a token", async () => {
    expect(await verify(goodToken)).to.deep.equal({
      ok: true,
      value: {
        user: user.username,
        groups: user.groups,
        subject: `${user.username}/pod-uid-1`,
        pod: { namespace: "team-a", name: "build-1" },
      },
    });
    expect(server.requests.at(-1)?.body).to.deep.include({
      spec: { token: goodToken, audiences: [audience] },
    });
  });

  it("knows a token that is bound to no Pod by its user alone", async () => {
    status = { authenticated: true, audiences: [audience], user: { username: user.username } };
    expect(await verify(goodToken)).to.deep.equal({
      ok: true,
      value: { user: user.username, groups: [], subject: user.username },
    });
  });

  for (const [what, token] of [
    ["a password", "hunter2"],
    ["nothing", ""],
    ["a token of no form", "a.b"],
    ["a token whose claims are no JSON", `e30.${Buffer.from("hunter2").toString("base64url")}.x`],
    ["a token for nobody", tokenWith({})],
    ["a token for another audience", tokenWith({ aud: ["https://kubernetes.default.svc"] })],
    ["a token for one other", tokenWith({ aud: "vault" })],
  ] as const) {
    it(`refuses ${what} without telling the API server of it`, async () => {
      const reason = reasonOf(await verify(token));
      expect(reviews).to.equal(0);
      expect(reason).not.to.contain("hunter2");
      if (token !== "") expect(reason).not.to.contain(token);
    });
  }

  it("refuses a token that the API server does not know, without showing it", async () => {
    status = { error: `[invalid bearer token: ${goodToken}]` };
    const reason = reasonOf(await verify(goodToken));
    expect(reason).to.contain("invalid bearer token").and.not.contain(goodToken);
  });

  it("refuses one that was found good for another audience, or for any", async () => {
    for (const audiences of [["vault"], undefined]) {
      status = { authenticated: true, audiences, user };
      reasonOf(await verify(goodToken));
      time += 10_000;
    }
    expect(reviews).to.equal(2);
  });

  it("asks once a minute for a good token, and after seconds for another one", async () => {
    await verify(goodToken);
    time += 59_000;
    await verify(goodToken);
    expect(reviews).to.equal(1);
    time += 1_000;
    status = { error: "the Pod is gone" };
    reasonOf(await verify(goodToken));
    time += 4_000;
    reasonOf(await verify(goodToken));
    expect(reviews).to.equal(2);
    time += 1_000;
    status = { authenticated: true, audiences: [audience], user };
    expect((await verify(goodToken)).ok).to.equal(true);
  });

  it("says what helps against what the API server says", async () => {
    for (const [error, advice] of [
      ["service account UID (a) does not match claim (b)", "recreate the Pod"],
      ['[invalid bearer token, serviceaccounts "builder" not found]', "create it again, and then"],
      ["service account team-a/builder has been deleted", "create it again, and then"],
      ["pod UID (a) does not match service account pod ref claim (b)", "an earlier Pod"],
      ["service account token has been invalidated", "read the volume's files again"],
    ] as const) {
      status = { error };
      time += 10_000;
      const reason = reasonOf(await verify(goodToken));
      expect(reason).to.contain(error).and.contain(advice);
      expect(reason.includes("the kubelet renews"), error).to.equal(error.includes("invalidated"));
    }
  });

  it("does not accept a token longer than it lasts", async () => {
    const shortLived = tokenWith({ aud: audience, exp: epoch / 1000 + 20 });
    await verify(shortLived);
    time += 20_000;
    status = { error: "token has expired" };
    reasonOf(await verify(shortLived));
  });

  it("still knows whom it knew while the API server is away, until the token expires", async () => {
    await verify(goodToken);
    server.intercept = () => ({ status: 503 });
    time += 599_000;
    expect((await verify(goodToken)).ok).to.equal(true);
    time += 1_000;
    expect(await verify(goodToken).catch((e: unknown) => e)).to.be.instanceOf(Unavailable);
  });

  it("knows nobody else while the API server is away, or may not be asked", async () => {
    server.intercept = () => ({ status: 503 });
    expect(await verify(goodToken).catch((e: unknown) => e)).to.be.instanceOf(Unavailable);
    server.intercept = () => ({ status: 403, body: statusOf(403, "tokenreviews is forbidden") });
    const error = await verify(goodToken).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(Unavailable);
    expect(String(error)).to.contain("tokenreviews is forbidden");
  });
});

const hour = 3_600_000;
const account = "system:serviceaccount:team-a:builder";

const tokenUntil = (expiresAt: number, name = "a"): string =>
  ["{}", JSON.stringify({ exp: expiresAt / 1000, name }), "signature"]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");
const token = tokenUntil(epoch + hour);

describe("createExpiredTokenVerifier()", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let verify: VerifyToken;
  let time: number;
  /** What the API server says of tokens that are alive. */
  let identity: Identity;

  beforeEach(async () => {
    time = epoch;
    server = resources.add(await startFakeApiServer());
    putPod();
    identity = {
      user: account,
      groups: [],
      subject: `${account}/uid-1`,
      pod: { namespace: "team-a", name: "build-1" },
    };
    verify = withGrace(4 * hour);
  });
  afterEach(resources.stop);

  const withGrace = (grace: number): VerifyToken =>
    createExpiredTokenVerifier({
      client: createApiClient({ access: server.access }),
      verify: async (shown): Promise<Result<Identity>> => {
        const [, claims = ""] = shown.split(".");
        const { exp } = JSON.parse(Buffer.from(claims, "base64url").toString());
        if (exp * 1000 > time) return { ok: true, value: identity };
        return { ok: false, reason: "it has expired" };
      },
      graceMs: grace,
      now: () => time,
    });
  const putPod = (more: { readonly metadata?: object; readonly status?: object } = {}): void => {
    const metadata = { name: "build-1", namespace: "team-a", uid: "uid-1", ...more.metadata };
    server.put("pods", { metadata, status: { phase: "Running", ...more.status } });
  };

  it("takes a token that was seen alive, as one that has expired, until the grace is over", async () => {
    expect(await verify(token)).to.deep.equal({ ok: true, value: identity });
    time = epoch + hour + 1;
    const expected = { ok: true, value: { ...identity, isExpired: true } };
    expect(await verify(token)).to.deep.equal(expected);
    time = epoch + 5 * hour - 1;
    expect(await verify(token)).to.deep.equal(expected);
    time = epoch + 5 * hour;
    expect(await verify(token)).to.deep.equal({ ok: false, reason: "it has expired" });
  });

  it("takes none that was not seen, nor one like it, nor one of no Pod", async () => {
    time = epoch + hour + 1;
    expect((await verify(token)).ok).to.equal(false);
    time = epoch;
    await verify(token);
    const { pod: _, ...loose } = identity;
    identity = loose;
    const other = tokenUntil(epoch + hour, "b");
    expect((await verify(other)).ok).to.equal(true);
    time = epoch + hour + 1;
    expect((await verify(other)).ok).to.equal(false);
    expect((await verify(`${token.slice(0, -1)}A`)).ok).to.equal(false);
  });

  const gone: readonly [what: string, change: () => void][] = [
    ["is gone", () => server.remove("pods", "build-1", "team-a")],
    ["is another one of that name", () => putPod({ metadata: { uid: "uid-2" } })],
    ["is to end", () => putPod({ metadata: { deletionTimestamp: "2027-01-15T08:00:00Z" } })],
    ["has succeeded", () => putPod({ status: { phase: "Succeeded" } })],
    ["has failed", () => putPod({ status: { phase: "Failed" } })],
  ];
  for (const [what, change] of gone) {
    it(`takes none whose Pod ${what}`, async () => {
      await verify(token);
      time = epoch + hour + 1;
      expect((await verify(token)).ok).to.equal(true);
      change();
      time += 20_000;
      expect((await verify(token)).ok).to.equal(false);
    });
  }

  it("asks for a Pod once in some seconds", async () => {
    await verify(token);
    time = epoch + hour + 1;
    for (let count = 0; count < 5; count++) await verify(token);
    expect(server.requests).to.have.length(1);
  });

  it("looks at a few Pods at once, and forgets none for another namespace's tokens", async () => {
    await verify(token);
    const others: string[] = [];
    for (let number = 0; number < 10_500; number += 1) {
      others.push(tokenUntil(epoch + hour, `other-${number}`));
      identity = {
        user: "system:serviceaccount:team-b:builder",
        groups: [],
        subject: `system:serviceaccount:team-b:builder/uid-${number}`,
        pod: { namespace: "team-b", name: `build-${number}` },
      };
      await verify(others.at(-1) ?? "");
    }
    time = epoch + hour + 1;
    let underWay = 0;
    let most = 0;
    server.delay = async () => {
      underWay += 1;
      most = Math.max(most, underWay);
      await new Promise((resolve) => setTimeout(resolve, 2));
      underWay -= 1;
    };
    const flood = others.slice(-600).map((one) => verify(one).catch((error: unknown) => error));
    expect((await verify(token)).ok).to.equal(true);
    await Promise.all(flood);
    expect(most).to.be.within(1, 4);
  });

  it("takes none any longer, and asks nobody, where there is no grace", async () => {
    verify = withGrace(0);
    await verify(token);
    time = epoch + hour + 1;
    expect((await verify(token)).ok).to.equal(false);
    expect(server.requests).to.deep.equal([]);
  });

  it("can't say while Pods can't be read", async () => {
    await verify(token);
    time = epoch + hour + 1;
    server.intercept = () => ({ status: 403, body: { message: "no right" } });
    const error = await verify(token).catch((reason: unknown) => reason);
    expect(error).to.have.property("name", "Unavailable");
  });
});
