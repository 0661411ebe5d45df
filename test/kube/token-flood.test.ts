import { expect } from "chai";
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";
import {
  type Identity,
  type Result,
  type TokenSender,
  Unavailable,
  type VerifyToken,
} from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import type { OnLookup } from "../../src/kube/lookup-cache.ts";
import { createTokenReviewer } from "../../src/kube/verify-token.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "./fake-api-server.ts";

const audience = "connectors-proxy";
const keysPath = "/openid/v1/jwks";
const epoch = 1_800_000_000_000;

interface Signer {
  readonly id: string;
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}

const createSigner = async (id: string, algorithm = "RS256"): Promise<Signer> => {
  const { privateKey, publicKey } = await generateKeyPair(algorithm);
  const jwk = { ...(await exportJWK(publicKey)), kid: id, alg: algorithm, use: "sig" };
  return { id, privateKey, jwk };
};

/** Junk in the form of a token, of the right audience. */
const forgedToken = (number: number, kid = "key-1"): string =>
  [
    JSON.stringify({ alg: "RS256", kid }),
    JSON.stringify({ aud: [audience], exp: epoch / 1000 + 600, number }),
    "signature",
  ]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");

const accountOf = (team: string): string => `system:serviceaccount:${team}:builder`;

describe("tokens of strangers", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let signer: Signer;
  let published: readonly JWK[] | undefined;
  let time = epoch;
  /** The tokens of all reviews, in their order. */
  let reviewed: string[];
  let rejected: number;
  let outcomes: Record<string, number>;
  /** Who holds which token. */
  let accounts: Map<string, string>;
  let serial = 0;

  before(async () => {
    server = resources.add(await startFakeApiServer());
    signer = await createSigner("key-1");
  });
  beforeEach(() => {
    time = epoch;
    reviewed = [];
    rejected = 0;
    outcomes = {};
    accounts = new Map();
    published = [signer.jwk];
    server.delay = undefined;
    server.intercept = ({ path, body }) => {
      if (path === keysPath) {
        if (published === undefined) return { status: 403, body: statusOf(403, "forbidden") };
        return { status: 200, body: { keys: published } };
      }
      const { token } = (body as { spec: { token: string } }).spec;
      reviewed.push(token);
      const username = accounts.get(token);
      const status =
        username === undefined
          ? { error: "unknown token" }
          : { authenticated: true, audiences: [audience], user: { username } };
      return { status: 201, body: { status } };
    };
  });
  after(resources.stop);

  const createVerifier = (): VerifyToken =>
    createTokenReviewer({
      client: createApiClient({ access: server.access }),
      audience,
      now: () => time,
      onLookup: (outcome: Parameters<OnLookup>[0]) => {
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      },
      onReject: () => (rejected += 1),
    });
  const tokenOf = async (team: string, by = signer, seconds = 600): Promise<string> => {
    serial += 1;
    const token = await new SignJWT({ team, serial })
      .setProtectedHeader({ alg: by.jwk.alg ?? "", kid: by.id })
      .setAudience(audience)
      .setExpirationTime(epoch / 1000 + seconds)
      .sign(by.privateKey);
    accounts.set(token, accountOf(team));
    return token;
  };
  const senderAt = (address: string, port = 1): TokenSender => ({ address, connection: `${port}` });
  const isOk = (result: Result<Identity>): boolean => result.ok;
  const keysRead = (): number => server.requests.filter(({ path }) => path === keysPath).length;
  const unavailable = (error: unknown): string => (error as Error).name;

  it("cost no review where they are forged, and one where they are revoked", async () => {
    const verify = createVerifier();
    const other = await createSigner("key-1");
    const forged = [
      ...Array.from({ length: 500 }, (_, number) => forgedToken(number)),
      await tokenOf("team-a", other),
      `${(await tokenOf("team-a")).slice(0, -8)}AAAAAAAA`,
    ];
    const results = await Promise.all(forged.map((token) => verify(token)));
    expect(results.filter(isOk)).to.deep.equal([]);
    expect(results[0]).to.have.property("reason").that.contains("not signed");
    expect(reviewed).to.deep.equal([]);
    expect(outcomes).to.deep.equal({ unasked: forged.length });

    const revoked = await tokenOf("team-a");
    accounts.delete(revoked);
    expect(isOk(await verify(revoked))).to.equal(false);
    expect(reviewed).to.deep.equal([revoked]);
    const good = await tokenOf("team-a");
    expect(isOk(await verify(good))).to.equal(true);
  });

  for (const algorithm of ["ES256", "RS512", "PS256"]) {
    it(`are read with keys of ${algorithm}, too`, async () => {
      const by = await createSigner("key-2", algorithm);
      published = [signer.jwk, by.jwk];
      const verify = createVerifier();
      expect(isOk(await verify(await tokenOf("team-a", by)))).to.equal(true);
      expect(isOk(await verify(forgedToken(1, "key-2")))).to.equal(false);
      expect(reviewed).to.have.length(1);
    });
  }

  it("are known by a new key of the API server, whose keys are not read for each forged one", async () => {
    const verify = createVerifier();
    await verify(await tokenOf("team-a"));
    const before = keysRead();
    await Promise.all(
      Array.from({ length: 200 }, (_, number) => verify(forgedToken(number, `made-up-${number}`))),
    );
    expect(keysRead() - before).to.be.at.most(1);
    const next = await createSigner("key-2");
    published = [next.jwk, signer.jwk];
    time += 5_000;
    expect(isOk(await verify(await tokenOf("team-a", next)))).to.equal(true);
    expect(isOk(await verify(await tokenOf("team-a")))).to.equal(true);
  });

  for (const [what, keys] of [
    ["may not be read", undefined],
    ["are none", []],
    ["have a form that nobody knows", [{ kty: "new", alg: "RS256", kid: "key-1" }]],
  ] as const) {
    it(`are reviewed where the API server's keys ${what}`, async () => {
      published = keys;
      const verify = createVerifier();
      expect(isOk(await verify(await tokenOf("team-a")))).to.equal(true);
      expect(isOk(await verify(forgedToken(1)))).to.equal(false);
      expect(reviewed).to.have.length(2);
    });
  }

  it("cost no review where they have expired for longer than clocks differ", async () => {
    const verify = createVerifier();
    const token = await tokenOf("team-a", signer, 100);
    time += 159_000;
    expect(isOk(await verify(token))).to.equal(true);
    time += 1_000;
    expect(isOk(await verify(token))).to.equal(false);
    expect(reviewed).to.have.length(1);
  });

  it("displace no token that was accepted, nor what is known while the API server is away", async () => {
    published = undefined;
    const verify = createVerifier();
    const good = await tokenOf("team-a");
    expect(isOk(await verify(good, senderAt("10.0.0.1")))).to.equal(true);
    for (let number = 0; number < 10_500; number += 250) {
      const batch = Array.from({ length: 250 }, (_, index) => forgedToken(number + index));
      await Promise.all(batch.map((token) => verify(token, senderAt("10.0.0.2"))));
    }
    expect(reviewed.length).to.be.greaterThan(10_000);
    server.intercept = () => ({ status: 503 });
    time += 300_000;
    expect(isOk(await verify(good, senderAt("10.0.0.1")))).to.equal(true);
  });

  it("displace none of another namespace where they are good", async () => {
    published = undefined;
    const verify = createVerifier();
    const good = await tokenOf("team-a");
    await verify(good);
    for (let number = 0; number < 10_500; number += 250) {
      const batch = Array.from({ length: 250 }, (_, index) => forgedToken(number + index));
      for (const token of batch) accounts.set(token, accountOf("team-b"));
      await Promise.all(batch.map((token) => verify(token)));
    }
    server.intercept = () => ({ status: 503 });
    expect(isOk(await verify(good))).to.equal(true);
  });

  it("wait in a bounded queue, in which other senders and accepted tokens don't wait behind them", async () => {
    published = undefined;
    const verify = createVerifier();
    const known = await tokenOf("team-a");
    const fresh = await tokenOf("team-b");
    await verify(known);
    let underWay = 0;
    let most = 0;
    server.delay = async () => {
      underWay += 1;
      most = Math.max(most, underWay);
      await new Promise((resolve) => setTimeout(resolve, 5));
      underWay -= 1;
    };
    const flood = Array.from({ length: 4_000 }, (_, number) =>
      verify(forgedToken(number), senderAt("10.0.0.2", number % 3)).then(isOk, unavailable),
    );
    time += 61_000; // the known token has to be reviewed again
    expect(isOk(await verify(known, senderAt("10.0.0.3")))).to.equal(true);
    expect(isOk(await verify(fresh, senderAt("10.0.0.3")))).to.equal(true);
    expect(reviewed.length).to.be.below(30);
    // Behind the same address, another connection takes its turn, too.
    const beside = await tokenOf("team-c");
    expect(isOk(await verify(beside, senderAt("10.0.0.2", 99)))).to.equal(true);
    expect(reviewed.length).to.be.below(60);
    server.delay = undefined;
    const ends = await Promise.all(flood);
    expect(ends.filter((end) => end === "Unavailable")).to.have.length(rejected);
    expect(rejected).to.be.greaterThan(3_000);
    expect(most).to.be.within(1, 8);
  });

  it("are not waited for without end", async () => {
    published = undefined;
    const verify = createVerifier();
    server.delay = () => new Promise(() => undefined);
    const client = createApiClient({ access: server.access, timeoutMs: 200 });
    const impatient = createTokenReviewer({ client, audience, now: () => time });
    const errors = await Promise.all(
      Array.from({ length: 20 }, (_, number) =>
        impatient(forgedToken(number)).catch((error: unknown) => error),
      ),
    );
    for (const error of errors) expect(error).to.be.instanceOf(Unavailable);
    server.delay = undefined;
    expect(isOk(await verify(await tokenOf("team-a")))).to.equal(true);
  });
});
