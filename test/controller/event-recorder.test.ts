import { expect } from "chai";
import {
  bad,
  type Condition,
  type ConditionStates,
  createConditions,
  good,
  unknown,
  waitingFor,
} from "../../src/controller/conditions.ts";
import {
  conditionEvents,
  createEventRecorder,
  type RecordEvent,
} from "../../src/controller/event-recorder.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { connectorObject } from "./sample-connector.ts";

interface SeenEvent {
  readonly metadata: { readonly name: string };
  readonly note: string;
  readonly series?: { readonly count: number; readonly lastObservedTime: string };
}

describe("createEventRecorder()", () => {
  const resources = cleanup();
  const object = connectorObject();
  let server: FakeApiServer;
  let clock: FakeClock;
  let logged: string[];
  let record: RecordEvent;

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    clock = fakeClock();
    logged = [];
    record = recorder();
  });
  afterEach(resources.stop);

  const recorder = (): RecordEvent =>
    createEventRecorder({
      client: createApiClient({ access: server.access }),
      now: clock.now,
      instance: "controller-1",
      log: (_level, message) => logged.push(message),
    });
  const warning = (reason: string, note = "it is so") =>
    ({ type: "Warning", reason, note }) as const;
  const events = (): readonly SeenEvent[] => {
    const names = server.requests.map(({ body }) => (body as SeenEvent).metadata?.name);
    return [...new Set(names)].flatMap((name) => {
      const event = name && server.get("events", name, "team-a");
      return event ? [event as unknown as SeenEvent] : [];
    });
  };

  it("tells of what happened, to whom, and who says so", async () => {
    await record(object, warning("SecretNotFound"));
    const [event] = events();
    expect(event).to.deep.include({
      apiVersion: "events.k8s.io/v1",
      kind: "Event",
      type: "Warning",
      reason: "SecretNotFound",
      note: "it is so",
      action: "Reconcile",
      eventTime: "2026-01-01T00:00:00.000000Z",
      reportingController: "connectors.alauda.io/oci-connector",
      reportingInstance: "controller-1",
      regarding: {
        apiVersion: "connectors.alauda.io/v1alpha1",
        kind: "Connector",
        name: "harbor",
        namespace: "team-a",
        uid: "uid-1",
        resourceVersion: "7",
      },
    });
  });

  it("makes a series of what repeats, whoever has begun it", async () => {
    await record(object, warning("SecretNotFound"));
    clock.advance(1000);
    await record(object, warning("SecretNotFound"));
    await record(object, warning("SecretInvalid"));
    const series = { count: 2, lastObservedTime: "2026-01-01T00:00:01.000000Z" };
    expect(events().map((event) => event.series)).to.deep.equal([series, undefined]);
    await recorder()(object, warning("SecretInvalid"));
    await record(object, warning("SecretNotFound"));
    expect(events().map((event) => event.series?.count)).to.deep.equal([3, 2]);
  });

  it("begins again when the event has expired", async () => {
    await record(object, warning("SecretNotFound"));
    server.remove("events", events()[0]?.metadata.name ?? "", "team-a");
    await record(object, warning("SecretNotFound"));
    expect(events().map((event) => event.series)).to.deep.equal([undefined]);
  });

  it("tells so much at once of a Connector, and then one a minute", async () => {
    const tell = async (times: number, of = object): Promise<void> => {
      for (let number = 0; number < times; number += 1) await record(of, warning(`R${number}`));
    };
    await tell(15);
    expect(events()).to.have.length(10);
    const other = { ...object, metadata: { ...object.metadata, uid: "uid-2" } };
    await tell(1, other);
    expect(server.requests).to.have.length(11);
    clock.advance(60_000);
    await tell(3);
    expect(server.requests).to.have.length(12);
  });

  it("cuts a note that is too long for the API", async () => {
    await record(object, warning("Long", "ü".repeat(2000)));
    const note = events()[0]?.note ?? "";
    expect(Buffer.byteLength(note)).to.be.within(1000, 1024);
    expect(note.endsWith("…")).to.equal(true);
  });

  it("logs what it can't tell, and goes on", async () => {
    server.intercept = () => ({ status: 403, body: statusOf(403, "forbidden") });
    await record(object, warning("SecretNotFound"));
    expect(logged).to.deep.equal(["an event can't be written"]);
  });
});

const fine = good("Fine", "");
const conditions = (more: Partial<ConditionStates>): readonly Condition[] =>
  createConditions(
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
  conditionEvents(before, after).map(({ type, reason, note }) => `${type} ${reason} ${note}`);

describe("conditionEvents()", () => {
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
