import { expect } from "chai";
import { bad, type ConditionStates, good, waitingFor } from "../../src/controller/conditions.ts";
import {
  isDue,
  type Observation,
  type ReconcileState,
  scheduleNext,
  untilNextLook,
} from "../../src/controller/reconcile-schedule.ts";

const timing = { periodMs: 360_000, initialRetryMs: 2_000, maxRetryMs: 120_000, lookMs: 60_000 };
const fine = good("Fine", "");
const findings: ConditionStates = {
  ConnectorClassReady: fine,
  SecretReady: fine,
  LivenessReady: fine,
  AuthReady: fine,
  ProxyServiceReady: fine,
  CACertReady: fine,
};
const looked = (more: Partial<ConditionStates> = {}, version = "v1"): Observation => ({
  version,
  outcome: undefined,
  states: { ...findings, ...more },
});
const longest = () => 1;
const next = (
  before: ReconcileState | undefined,
  found: Observation,
  now = 0,
  random = longest,
): ReconcileState => scheduleNext(before, found, timing, { now, random });

const missing = { SecretReady: bad("SecretNotFound", "") };

describe("scheduleNext()", () => {
  it("comes back after half the period to a whole one", () => {
    expect(next(undefined, looked()).dueAt).to.equal(360_000);
    expect(next(undefined, looked(), 1000, () => 0).dueAt).to.equal(181_000);
  });

  it("comes back soon to what may mend itself, ever more rarely", () => {
    let memory: ReconcileState | undefined;
    let now = 0;
    const delays = Array.from({ length: 9 }, () => {
      memory = next(memory, looked(missing), now);
      const delay = memory.dueAt - now;
      now = memory.dueAt;
      return delay / 1000;
    });
    expect(delays).to.deep.equal([2, 4, 8, 16, 32, 64, 120, 120, 120]);
    memory = next(memory, looked(), now);
    expect(memory).to.include({ failures: 0, dueAt: now + 360_000 });
  });

  it("starts anew with another spec or Secret", () => {
    const memory = next(next(undefined, looked(missing)), looked(missing), 2_000);
    expect(memory.failures).to.equal(2);
    expect(next(memory, looked(missing, "v2"), 2_001)).to.include({ failures: 1, dueAt: 4_001 });
  });

  it("is not moved by whoever looks before it is due", () => {
    const memory = next(undefined, looked(missing));
    expect(next(memory, looked(missing), 1_999)).to.deep.equal(memory);
    const calm = next(undefined, looked());
    expect(next(calm, looked(), 1_000)).to.deep.equal(calm);
  });

  it("comes back soon when trouble shows before it is due", () => {
    const conflict = { ProxyServiceReady: bad("ServiceConflict", "") };
    const memory = next(next(undefined, looked()), looked(conflict), 1_000);
    expect(memory.dueAt).to.equal(3_000);
  });

  it("has no hurry where only a person can help, or the registry must be left in peace", () => {
    for (const finding of [
      { ConnectorClassReady: bad("ConnectorClassNotFound", "") },
      { AuthReady: bad("AuthenticationFailed", "") },
      { AuthReady: waitingFor("SecretReady") },
    ]) {
      expect(next(undefined, looked(finding)).dueAt).to.equal(360_000);
    }
  });
});

describe("untilNextLook()", () => {
  const until = (dueAt: number, connectors: number, random: number): number =>
    untilNextLook({ version: "v1", outcome: undefined, failures: 0, dueAt }, timing, {
      now: 1_000,
      random: () => random,
      connectors,
    });

  it("is half a minute to a minute, or until the next probe", () => {
    expect(until(361_000, 1, 0)).to.equal(30_000);
    expect(until(361_000, 1, 1)).to.equal(60_000);
    expect(until(21_000, 1, 1)).to.equal(20_000);
    expect(until(0, 1, 1)).to.equal(0);
  });

  it("is longer with very many Connectors, and never longer than until the next probe", () => {
    expect(until(361_000, 600, 1)).to.equal(60_000);
    expect(until(361_000, 3_000, 1)).to.equal(300_000);
    expect(until(361_000, 10_000, 1)).to.equal(360_000);
  });
});

describe("isDue()", () => {
  it("is so at first, for another version, and in time", () => {
    const memory = next(undefined, looked());
    expect(isDue(undefined, "v1", 0)).to.equal(true);
    expect(isDue(memory, "v2", 0)).to.equal(true);
    expect(isDue(memory, "v1", 359_999)).to.equal(false);
    expect(isDue(memory, "v1", 360_000)).to.equal(true);
  });
});
