import { expect } from "chai";
import type { Identity, Result, VerifyToken } from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { outliveTokens } from "../../src/kube/outlive-tokens.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeApiServer, startFakeApiServer } from "./fake-api-server.ts";

const epoch = 1_800_000_000_000;
const hour = 3_600_000;
const user = "system:serviceaccount:team-a:builder";

const tokenUntil = (expiresAt: number, name = "a"): string =>
  ["{}", JSON.stringify({ exp: expiresAt / 1000, name }), "signature"]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");
const token = tokenUntil(epoch + hour);

describe("outliveTokens()", () => {
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
      ...{ user, groups: [] },
      subject: `${user}/uid-1`,
      pod: { namespace: "team-a", name: "build-1" },
    };
    verify = withGrace(4 * hour);
  });
  afterEach(resources.stop);

  const withGrace = (grace: number): VerifyToken =>
    outliveTokens({
      client: createApiClient({ access: server.access }),
      verify: async (shown): Promise<Result<Identity>> => {
        const [, claims = ""] = shown.split(".");
        const { exp } = JSON.parse(Buffer.from(claims, "base64url").toString());
        if (exp * 1000 > time) return { ok: true, value: identity };
        return { ok: false, reason: "it has expired" };
      },
      grace,
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
