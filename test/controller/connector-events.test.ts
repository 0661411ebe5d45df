import { expect } from "chai";
import {
  bad,
  type Condition,
  type ConditionStates,
  conditionsOf,
  good,
  unknown,
  waitingFor,
} from "../../src/controller/conditions.ts";
import { happeningsOf } from "../../src/controller/event-recorder.ts";

const fine = good("Fine", "");
const conditions = (more: Partial<ConditionStates>): readonly Condition[] =>
  conditionsOf(
    {
      ConnectorClassReady: fine,
      SecretReady: fine,
      LivenessReady: fine,
      AuthReady: fine,
      ProxyServiceReady: fine,
      CACertReady: fine,
      ...more,
    },
    { generation: 1, before: [], now: 0 },
  );
const told = (before: readonly Condition[], after: readonly Condition[]): readonly string[] =>
  happeningsOf(before, after).map(({ type, reason, note }) => `${type} ${reason} ${note}`);

describe("happeningsOf()", () => {
  const ready = conditions({});
  const down = conditions({
    LivenessReady: bad("ConnectionFailed", "nobody there"),
    AuthReady: waitingFor("LivenessReady"),
  });

  it("tells of what has become wrong, once, and not of what waits for it", () => {
    const warning = "Warning ConnectionFailed LivenessReady: nobody there";
    expect(told(ready, down)).to.deep.equal([warning]);
    expect(told([], down)).to.deep.equal([warning]);
    expect(told(down, down)).to.deep.equal([]);
  });

  it("tells of another reason, and not of another message", () => {
    const refused = bad("AuthenticationFailed", "one");
    const before = conditions({ AuthReady: refused });
    expect(told(before, conditions({ AuthReady: { ...refused, message: "two" } }))).to.deep.equal(
      [],
    );
    expect(told(before, conditions({ AuthReady: bad("AccessDenied", "no") }))).to.deep.equal([
      "Warning AccessDenied AuthReady: no",
    ]);
  });

  it("tells that it is ready, again", () => {
    const note = "Normal Ready Pods can use this connector";
    expect(told([], ready)).to.deep.equal([note]);
    expect(told(down, ready)).to.deep.equal([note]);
    expect(told(ready, conditions({ CACertReady: bad("SecretNotFound", "") }))).to.have.length(1);
  });

  it("tells nothing of what is not known", () => {
    expect(told(ready, conditions({ LivenessReady: unknown("Probing", "") }))).to.deep.equal([]);
  });
});
