import { expect } from "chai";
import {
  bad,
  type Condition,
  type ConditionStates,
  createConditions,
  good,
  type PartType,
  readConditions,
  unknown,
  waitingFor,
} from "../../src/controller/conditions.ts";

const fine = good("Fine", "it is");
const allFine: ConditionStates = {
  ConnectorClassReady: fine,
  SecretReady: fine,
  LivenessReady: fine,
  AuthReady: fine,
  ProxyServiceReady: fine,
  CACertReady: fine,
};
const noon = Date.parse("2026-01-01T12:00:00.789Z");

const conditions = (
  findings: Partial<ConditionStates>,
  before: readonly Condition[] = [],
  now = noon,
) => createConditions({ ...allFine, ...findings }, { generation: 3, before, now });
const ready = (findings: Partial<ConditionStates>) => conditions(findings).at(-1);

describe("createConditions()", () => {
  it("has all conditions in order, each with everything that belongs to one", () => {
    const all = conditions({});
    expect(all.map(({ type }) => type)).to.deep.equal([
      "ConnectorClassReady",
      "SecretReady",
      "LivenessReady",
      "AuthReady",
      "ProxyServiceReady",
      "CACertReady",
      "Ready",
    ]);
    expect(all[0]).to.deep.equal({
      type: "ConnectorClassReady",
      ...fine,
      observedGeneration: 3,
      lastTransitionTime: "2026-01-01T12:00:00Z",
      lastProbeTime: "2026-01-01T12:00:00Z",
    });
    expect(all.at(-1)).to.include({ status: "True", reason: "Ready" });
  });

  it("is not ready for the first thing that is wrong, before anything that is unknown", () => {
    const findings = {
      ConnectorClassReady: unknown("Looking", "…"),
      LivenessReady: bad("ConnectionFailed", "nobody there"),
      AuthReady: waitingFor("LivenessReady"),
      ProxyServiceReady: bad("ServiceConflict", "another"),
    };
    expect(ready(findings)).to.include({
      status: "False",
      reason: "ConnectionFailed",
      message: "LivenessReady: nobody there",
    });
    expect(ready({ AuthReady: waitingFor("LivenessReady") })).to.include({
      status: "Unknown",
      reason: "WaitingForLiveness",
    });
  });

  it("needs every part but the certificates", () => {
    for (const type of Object.keys(allFine) as PartType[]) {
      const { status } = ready({ [type]: bad("Bad", "") }) ?? {};
      expect(status, type).to.equal(type === "CACertReady" ? "True" : "False");
    }
  });

  it("keeps the time of a condition until its status changes", () => {
    const first = conditions({ AuthReady: bad("A", "one") });
    const second = conditions({ AuthReady: bad("B", "two") }, first, noon + 60_000);
    expect(second.map((one) => one.lastTransitionTime)).to.deep.equal(
      first.map((one) => one.lastTransitionTime),
    );
    const third = conditions({}, second, noon + 120_000);
    const changed = third.filter((one, index) => {
      return one.lastTransitionTime !== second[index]?.lastTransitionTime;
    });
    expect(changed.map(({ type }) => type)).to.deep.equal(["AuthReady", "Ready"]);
    expect(changed[0]?.lastTransitionTime).to.equal("2026-01-01T12:02:00Z");
  });
});

describe("the time of the last probe", () => {
  const times = (all: readonly Condition[]): readonly string[] => [
    ...new Set(all.map(({ lastProbeTime }) => lastProbeTime)),
  ];

  it("is kept for an hour while nothing changes, and then renewed for all", () => {
    const first = conditions({});
    const kept = conditions({}, first, noon + 59 * 60_000);
    expect(kept).to.deep.equal(first);
    const renewed = conditions({}, kept, noon + 60 * 60_000);
    expect(times(renewed)).to.deep.equal(["2026-01-01T13:00:00Z"]);
    expect(renewed.map((one) => one.lastTransitionTime)).to.deep.equal(
      first.map((one) => one.lastTransitionTime),
    );
  });

  it("is kept for longer while a probe is pending", () => {
    const first = conditions({});
    const options = { generation: 1, before: first, now: noon + 90 * 60_000, isPending: true };
    const states = Object.fromEntries(
      first.map(({ type, status, reason, message }) => [type, { status, reason, message }]),
    ) as unknown as Parameters<typeof createConditions>[0];
    expect(times(createConditions(states, options))).to.deep.equal(times(first));
  });

  it("is renewed when a condition changes, be it a message alone", () => {
    const first = conditions({ AuthReady: bad("A", "one") });
    for (const state of [bad("A", "two"), bad("B", "one"), good("A", "one")]) {
      const second = conditions({ AuthReady: state }, first, noon + 60_000);
      expect(times(second)).to.deep.equal(["2026-01-01T12:01:00Z"]);
    }
  });

  it("is written where there is none yet", () => {
    const before = conditions({}).map((one) => ({ ...one, lastProbeTime: "" }));
    expect(times(conditions({}, before, noon + 60_000))).to.deep.equal(["2026-01-01T12:01:00Z"]);
  });
});

describe("readConditions()", () => {
  it("reads back what was written, and bears what others have written", () => {
    const all = conditions({});
    expect(readConditions({ status: { conditions: all } })).to.deep.equal(all);
    for (const status of [undefined, {}, { conditions: "no" }, null]) {
      expect(readConditions({ status })).to.deep.equal([]);
    }
    const [odd] = readConditions({ status: { conditions: [{ type: "Ready" }] } });
    const after = conditions({}, odd ? [odd] : []);
    expect(after.at(-1)?.lastTransitionTime).to.equal("2026-01-01T12:00:00Z");
  });
});
