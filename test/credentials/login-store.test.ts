import { setImmediate as turn } from "node:timers/promises";
import { expect } from "chai";
import { Unavailable } from "../../src/connector/platform.ts";
import { type Login, LoginError } from "../../src/credentials/login.ts";
import {
  type LoginOutcome,
  type LoginSource,
  LoginStore,
} from "../../src/credentials/login-store.ts";
import { cleanup } from "../support/cleanup.ts";

const minute = 60_000;
const hour = 60 * minute;

describe("the store of logins", () => {
  const resources = cleanup();
  let now: number;
  let random: number;
  let store: LoginStore;
  let outcomes: LoginOutcome[];
  /** How many logins were given, and how many identities looked at. */
  let given: number;
  let looks: number;
  let lifeMs: number | undefined;
  let failure: unknown;
  let refusal: unknown;
  let identity: string;
  let wait: Promise<unknown> | undefined;

  beforeEach(() => {
    now = Date.parse("2026-01-01T00:00:00Z");
    random = 0.5;
    outcomes = [];
    [given, looks, lifeMs, failure, refusal, identity, wait] = [
      0,
      0,
      hour,
      undefined,
      undefined,
      "1",
      undefined,
    ];
    store = resources.add(
      new LoginStore({
        now: () => now,
        random: () => random,
        onOutcome: (outcome) => outcomes.push(outcome),
      }),
    );
  });
  afterEach(resources.stop);

  const obtain = async (): Promise<Login> => {
    await wait;
    if (failure !== undefined) throw failure;
    given += 1;
    return {
      credential: { username: "robot", password: `login-${given}` },
      expiresAt: lifeMs === undefined ? undefined : now + lifeMs,
    };
  };
  const source = (key = "u1", more: Partial<LoginSource> = {}): LoginSource => ({
    key,
    connector: `team-a/${key}`,
    owner: "team-a",
    method: "oidcAuth",
    identity: "ServiceAccount team-a/puller",
    version: "1",
    async check() {
      looks += 1;
      if (refusal !== undefined) throw refusal;
      return { version: identity, obtain };
    },
    ...more,
  });
  const use = async (key?: string, more?: Partial<LoginSource>): Promise<string> =>
    (await store.use(source(key, more))).credential.password;
  const settled = async (): Promise<void> => {
    for (let time = 0; time < 5; time++) await turn();
  };
  const busy = new LoginError("ExchangeFailed", "busy", { isTransient: true });

  it("makes one login for all who wait", async () => {
    const all = await Promise.all(Array.from({ length: 50 }, () => use()));
    expect(new Set(all)).to.deep.equal(new Set(["login-1"]));
    expect([given, looks]).to.deep.equal([1, 1]);
  });

  it("renews it behind its uses at 80 % of its life, which jitter spreads", async () => {
    for (const [share, at] of [
      [0, 0.75],
      [0.5, 0.8],
      [0.999, 0.8499],
    ] as const) {
      random = share;
      const key = `u${share}`;
      await use(key);
      const before = given;
      now += at * hour - 1;
      await use(key);
      await settled();
      expect(given, `before ${at}`).to.equal(before);
      now += 1;
      expect(await use(key), "the use does not wait").to.equal(`login-${before}`);
      await settled();
      expect(given, `at ${at}`).to.equal(before + 1);
      expect(await use(key)).to.equal(`login-${before + 1}`);
    }
  });

  it("uses the old one until a minute before its end where the renewal fails, and tries again ever later", async () => {
    await use();
    failure = busy;
    now += 0.8 * hour;
    const attempts: number[] = [];
    for (; now < Date.parse("2026-01-01T00:59:00Z"); now += 1_000) {
      const before = outcomes.length;
      expect(await use()).to.equal("login-1");
      await settled();
      if (outcomes.length > before) attempts.push(now);
    }
    const gaps = attempts.slice(1).map((at, index) => at - (attempts[index] ?? 0));
    expect(gaps.slice(0, 7)).to.deep.equal(
      [1, 2, 4, 8, 16, 32, 60].map((seconds) => seconds * 1000),
    );
    expect(Math.max(...gaps)).to.equal(minute);
    const error = await use().catch((reason: unknown) => reason);
    expect(error).to.equal(busy);
    failure = undefined;
    now += minute;
    expect(await use()).to.equal("login-2");
  });

  it("leaves a server alone for as long as it asks", async () => {
    failure = new LoginError("ExchangeFailed", "busy", { isTransient: true, retryAfterMs: 90_000 });
    await use().catch(() => undefined);
    failure = undefined;
    now += 89_000;
    expect(await use().catch((error: unknown) => error)).to.be.instanceOf(LoginError);
    now += 1_000;
    expect(await use()).to.equal("login-1");
  });

  it("bears a clock that is a minute behind, and short lives", async () => {
    for (const [life, usable] of [
      [hour, hour - minute],
      [3_000, 2_700],
    ] as const) {
      lifeMs = life;
      const login = await store.use(source(`u${life}`));
      expect(login.usableUntil - login.obtainedAt).to.equal(usable);
      expect(login.expiresAt - login.obtainedAt).to.equal(life);
    }
  });

  it("takes ten minutes for the life of a login that does not say it, or that has ended already", async () => {
    for (const life of [undefined, -hour]) {
      lifeMs = life;
      const login = await store.use(source(`u${life}`));
      expect(login.expiresAt - login.obtainedAt).to.equal(10 * minute);
    }
  });

  it("looks at an identity each minute of its use", async () => {
    for (let second = 0; second < 600; second += 5) {
      await use();
      now += 5_000;
    }
    expect(looks).to.be.within(9, 11);
    expect(given).to.equal(1);
  });

  it("drops the login of an identity that is refused, and takes the identity back within seconds", async () => {
    await use();
    refusal = new LoginError("TokenForbidden", "no Role");
    now += 61_000;
    await use().catch(() => undefined); // the look may still be under way
    await settled();
    expect(await use().catch((error: unknown) => error)).to.equal(refusal);
    refusal = undefined;
    now += 5_000;
    expect(await use()).to.equal("login-2");
  });

  it("looks first where nobody has looked for longer", async () => {
    await use();
    refusal = new LoginError("TokenForbidden", "no Role");
    now += 91_000;
    expect(await use().catch((error: unknown) => error)).to.equal(refusal);
  });

  it("makes another login for an identity that has changed", async () => {
    await use();
    identity = "2";
    now += 91_000;
    expect(await use()).to.equal("login-2");
  });

  it("makes another login for a spec that has changed", async () => {
    await use();
    expect(await use("u1", { version: "2" })).to.equal("login-2");
    expect(await use("u1", { version: "2" })).to.equal("login-2");
  });

  it("keeps what it has while nobody can say whether the identity may be used", async () => {
    await use();
    refusal = new Unavailable("the API server is away");
    for (; now < Date.parse("2026-01-01T00:30:00Z"); now += 30_000) {
      expect(await use()).to.equal("login-1");
    }
    expect(await use("u2").catch((error: unknown) => error)).to.equal(refusal);
  });

  it("keeps no login that was obtained while the right was taken", async () => {
    let release: (() => void) | undefined;
    wait = new Promise<void>((resolve) => {
      release = resolve;
    });
    const first = use().catch((error: unknown) => error);
    await settled();
    refusal = new LoginError("TokenForbidden", "no Role");
    now += 91_000;
    const second = use().catch((error: unknown) => error);
    await settled();
    release?.();
    expect([await first, await second]).to.deep.equal([refusal, refusal]);
    expect(store.logins()).to.deep.equal([]);
  });

  it("gets another one in place of a login that the registry refuses, once a minute", async () => {
    const refused = async (): Promise<string> =>
      (await store.use(source(), { isRefused: true })).credential.password;
    await use();
    expect(await refused()).to.equal("login-1");
    now += minute;
    expect(await Promise.all([refused(), refused()])).to.deep.equal(["login-2", "login-2"]);
    expect(await refused()).to.equal("login-2");
    now += minute;
    failure = busy;
    expect(await refused(), "the old one may still be good").to.equal("login-2");
  });

  it("tells what lives without using it", async () => {
    expect(store.peek(source())).to.equal(undefined);
    await use();
    expect(store.peek(source())?.credential.password).to.equal("login-1");
    expect(store.peek(source("u1", { version: "2" }))).to.equal(undefined);
    expect(store.logins()).to.deep.equal([
      { connector: "team-a/u1", method: "oidcAuth", expiresAt: now + hour },
    ]);
    now += hour;
    expect(store.peek(source())).to.equal(undefined);
  });

  it("forgets what nobody has used for an hour", async () => {
    await use();
    now += 30 * minute;
    await use("u2");
    store.peek(source());
    now += 30 * minute;
    store.forgetUnused();
    expect(store.logins().map(({ connector }) => connector)).to.deep.equal(["team-a/u2"]);
  });

  it("says what came of each attempt", async () => {
    await use();
    failure = busy;
    await use("u2").catch(() => undefined);
    expect(
      outcomes.map(({ connector, method, error }) => [connector, method, error]),
    ).to.deep.equal([
      ["team-a/u1", "oidcAuth", undefined],
      ["team-a/u2", "oidcAuth", busy],
    ]);
  });

  it("has a thousand logins, of which the namespace with the most loses its oldest", async () => {
    await use("mine", { owner: "team-b" });
    for (let index = 0; index < 1_100; index++) await use(`u${index}`);
    expect(store.logins()).to.have.length(1_000);
    expect(store.peek(source("mine"))).not.to.equal(undefined);
    expect(store.peek(source("u0"))).to.equal(undefined);
    expect(store.peek(source("u1099"))).not.to.equal(undefined);
  });

  it("makes 16 logins of one namespace at a time, and leaves room for others", async () => {
    let release: (() => void) | undefined;
    wait = new Promise<void>((resolve) => {
      release = resolve;
    });
    const mine = Array.from({ length: 20 }, (_, index) => use(`u${index}`).catch(String));
    await settled();
    const other = use("other", { owner: "team-b" });
    release?.();
    const results = await Promise.all(mine);
    expect(results.filter((result) => result.startsWith("login-"))).to.have.length(16);
    expect(results.at(-1)).to.contain("too many logins are being obtained at a time");
    expect(await other).to.match(/^login-/);
    wait = undefined;
    expect(await use("u19")).to.match(/^login-/);
  });
});
