import { expect } from "chai";
import fc from "fast-check";
import type { UpstreamSecrets } from "../../src/connector/platform.ts";
import { timestamp } from "../../src/controller/conditions.ts";
import {
  type AuthRefusal,
  formatRefusal,
  type ProbeOutcome,
  type ProbeSubject,
  probeRegistry,
} from "../../src/controller/probe-registry.ts";
import type { ProbeFinding, ProbeResult } from "../../src/upstream/probe.ts";
import { connectorObject, connectorOf, noIdentities } from "./sample-connector.ts";

const minute = 60_000;
const start = Date.parse("2026-01-01T00:00:00Z");
const alive = { ok: true, reason: "Reachable", message: "it answers" } as const;
type Failed = Extract<ProbeFinding, { ok: false }>;
const failed = (reason: Failed["reason"]): Failed => ({
  ok: false,
  reason,
  message: `${reason}!`,
});
const object = connectorObject();
const secrets: UpstreamSecrets = {
  credential: { username: "robot", password: "wrong" },
  caCertificates: ["a certificate"],
};

/** A registry, and the times at which somebody tried to log in to it. */
function registry(answer: (secrets: UpstreamSecrets) => ProbeResult) {
  const logins: number[] = [];
  let asked = 0;
  const state = { now: start };
  const find = (subject: Partial<ProbeSubject> = {}): Promise<ProbeOutcome> => {
    const given = { connector: connectorOf(object), secrets, object, loginVersion: "v1" };
    return probeRegistry(
      { ...given, known: undefined, refusal: undefined, ...subject },
      {
        async probe(_connector, used) {
          asked += 1;
          if (used.credential !== undefined) logins.push(state.now);
          expect(used.caCertificates).to.deep.equal(secrets.caCertificates);
          return answer(used);
        },
        identityLogins: noIdentities,
        now: () => state.now,
        signal: new AbortController().signal,
      },
    );
  };
  return {
    state,
    logins,
    find,
    get asked() {
      return asked;
    },
  };
}

const refusing = (): ReturnType<typeof registry> =>
  registry(({ credential }) => ({
    liveness: alive,
    // Without a credential it would let anybody in, which says nothing of the credential.
    auth:
      credential === undefined ? { ...alive, reason: "Anonymous" } : failed("AuthenticationFailed"),
  }));

const recorded = (refusal: AuthRefusal) =>
  connectorObject({}, { authProbe: formatRefusal(refusal) });

describe("probeRegistry()", () => {
  it("asks nobody for what is known", async () => {
    const { find, logins } = refusing();
    const known = { liveness: alive, auth: alive, refusal: undefined };
    expect(await find({ known })).to.equal(known);
    expect(logins).to.deep.equal([]);
  });

  it("keeps a credential that was refused from the registry, longer each time", async () => {
    const { find, state, logins } = refusing();
    let outcome = await find();
    expect(outcome.refusal).to.include({ count: 1, time: start, version: "v1" });
    for (const [index, minutes] of [5, 10, 20, 40, 60, 60].entries()) {
      const since = state.now;
      for (const almost of [1, minutes * minute - 1]) {
        state.now = since + almost;
        outcome = await find({ refusal: outcome.refusal });
        expect(logins).to.have.length(index + 1);
        const minutesLater = timestamp(since + minutes * minute);
        expect(outcome.auth.message).to.equal(
          `AuthenticationFailed! (attempts so far: ${index + 1}; the next one is at ${minutesLater}, or when the Secret changes)`,
        );
        expect(outcome.liveness).to.equal(alive);
      }
      state.now = since + minutes * minute;
      outcome = await find({ refusal: outcome.refusal });
      expect(logins).to.have.length(index + 2);
    }
  });

  it("tries a new credential at once", async () => {
    const { find, logins } = refusing();
    const { refusal } = await find();
    const second = await find({ refusal, loginVersion: "v2" });
    expect(logins).to.have.length(2);
    expect(second.refusal).to.include({ count: 1, version: "v2" });
  });

  it("heeds what another replica has recorded, or this one before it was started anew", async () => {
    const { find, state, logins } = refusing();
    const { refusal, auth } = await find();
    if (refusal === undefined) return expect.fail("it is not refused");
    state.now += 2 * minute;
    const after = await find({ object: recorded(refusal) });
    expect(after).to.deep.equal({ liveness: alive, auth, refusal });
    // What we knew before is older.
    const known = { liveness: alive, auth: alive, refusal: undefined };
    const corrected = await find({ object: recorded(refusal), known });
    expect(corrected.auth).to.deep.equal(auth);
    expect(logins).to.have.length(1);
  });

  it("tries again when another replica has logged in since, and not for an older login", async () => {
    const { find, state, logins } = refusing();
    const first = await find();
    const readyAt = (time: number) =>
      connectorObject(
        {},
        {
          conditions: [{ type: "AuthReady", status: "True", lastTransitionTime: timestamp(time) }],
        },
      );
    state.now += 2 * minute;
    const before = { known: first, refusal: first.refusal };
    expect(await find({ ...before, object: readyAt(start - minute) })).to.deep.equal(first);
    expect(logins).to.have.length(1);
    await find({ ...before, object: readyAt(start + minute) });
    expect(logins).to.have.length(2);
  });

  it("remembers a refusal while the registry is away", async () => {
    let liveness: ProbeFinding = alive;
    const { find, state, logins } = registry(() => ({
      liveness,
      auth: failed("AuthenticationFailed"),
    }));
    const first = await find();
    liveness = failed("ConnectionFailed");
    state.now += 5 * minute;
    const second = await find({ refusal: first.refusal });
    expect(second).to.include({ liveness, refusal: first.refusal });
    liveness = alive;
    state.now += minute;
    const third = await find({ refusal: second.refusal });
    expect(third.refusal).to.include({ count: 2, time: state.now });
    expect(logins).to.have.length(3);
  });

  it("forgets a refusal once the credential is accepted", async () => {
    let auth: ProbeFinding = failed("AccessDenied");
    const { find, state } = registry(() => ({ liveness: alive, auth }));
    const first = await find();
    expect(first.refusal).to.include({ count: 1, reason: "AccessDenied" });
    auth = alive;
    state.now += 5 * minute;
    const second = await find({ refusal: first.refusal });
    expect(second).to.deep.equal({ liveness: alive, auth: alive, refusal: undefined });
  });

  it("keeps nothing back where no account is concerned", async () => {
    for (const reason of ["ConnectionFailed", "AuthRealmRejected"] as const) {
      const { find } = registry(() => ({ liveness: alive, auth: failed(reason) }));
      expect((await find()).refusal).to.equal(undefined);
    }
    const { find } = registry(() => ({ liveness: alive, auth: failed("AuthenticationFailed") }));
    const anonymous = await find({ secrets: { ...secrets, credential: undefined } });
    expect(anonymous.refusal).to.equal(undefined);
  });

  it("locks no account, however many replicas there are and however often they start anew", async () => {
    const wakes = fc.array(
      fc.record({
        afterMs: fc.integer({ min: 1, max: 10 * minute }),
        replica: fc.nat(2),
        isRestarted: fc.boolean(),
      }),
      { minLength: 1, maxLength: 200 },
    );
    await fc.assert(
      fc.asyncProperty(wakes, async (times) => {
        const { find, state, logins } = refusing();
        const memories: (AuthRefusal | undefined)[] = [];
        let current = object;
        for (const { afterMs, replica, isRestarted } of times) {
          state.now += afterMs;
          const refusal = isRestarted ? undefined : memories[replica];
          const outcome = await find({ object: current, refusal });
          memories[replica] = outcome.refusal;
          if (outcome.refusal !== undefined) current = recorded(outcome.refusal);
        }
        expectGaps(logins);
      }),
      { numRuns: 50 },
    );
  });

  /** Between the first and the second there have to be five minutes, then ten, and so on. */
  const expectGaps = (logins: readonly number[]): void => {
    for (const [index, time] of logins.slice(1).entries()) {
      const gap = time - (logins[index] ?? 0);
      expect(gap).to.be.at.least(Math.min(5 * 2 ** index, 60) * minute);
    }
  };
});
