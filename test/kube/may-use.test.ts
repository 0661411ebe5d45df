import { expect } from "chai";
import {
  type FindConnector,
  type MayUse,
  type Result,
  Unavailable,
} from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { type AccessReviewOptions, createAccessReviewer } from "../../src/kube/may-use.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "./fake-api-server.ts";

const who = { user: "system:serviceaccount:team-a:builder", groups: ["system:authenticated"] };
const harbor = { namespace: "team-a", name: "harbor" };

interface ReviewBody {
  readonly spec: {
    readonly user: string;
    readonly groups: readonly string[];
    readonly resourceAttributes: Readonly<Record<string, string>>;
  };
}

describe("createAccessReviewer()", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let time = 0;
  /** `get connectors team-a/harbor` */
  let granted: Set<string>;
  let asked: string[];
  /** Whom a review has to be about. */
  let expected: { readonly user: string; readonly groups: readonly string[] };

  before(async () => {
    server = resources.add(await startFakeApiServer());
  });
  beforeEach(() => {
    granted = new Set();
    asked = [];
    expected = who;
    server.intercept = ({ body }) => {
      const { resourceAttributes: attributes, ...subject } = (body as ReviewBody).spec;
      expect(subject).to.deep.equal(expected);
      expect(attributes.group).to.equal("connectors.alauda.io");
      const { verb, resource, subresource, namespace, name } = attributes;
      const path = subresource === undefined ? resource : `${resource}/${subresource}`;
      const right = `${verb} ${path} ${namespace}/${name}`;
      asked.push(right);
      return { status: 201, body: { status: { allowed: granted.has(right) } } };
    };
  });
  after(resources.stop);

  const reviewer = (options: Partial<AccessReviewOptions> = {}): MayUse =>
    createAccessReviewer({
      client: createApiClient({ access: server.access }),
      now: () => time,
      separatePush: false,
      requireProxyVerb: false,
      defaultPermission: "none",
      ...options,
    });
  const reasonOf = (answer: Result<void>): string =>
    answer.ok ? expect.fail("it was allowed") : answer.reason;

  it("keeps a right that an API server denies which has just begun, and believes it later", async () => {
    let lastFailureAt = Number.NEGATIVE_INFINITY;
    const { request } = createApiClient({ access: server.access });
    const mayUse = reviewer({ client: { request, lastFailureAt: () => lastFailureAt } });
    const isAllowed = async (connector = harbor): Promise<boolean> =>
      (await mayUse(who, connector, "pull")).ok;
    granted.add("get connectors team-a/harbor");
    expect(await isAllowed()).to.equal(true);

    granted.clear();
    lastFailureAt = performance.now();
    time += 61_000;
    expect(await isAllowed()).to.equal(true);
    expect(await isAllowed({ ...harbor, name: "never-granted" })).to.equal(false);

    lastFailureAt = performance.now() - 31_000;
    time += 6_000;
    expect(await isAllowed()).to.equal(false);
    expect(asked.filter((right) => right.endsWith("/harbor"))).to.have.lengthOf(3);
  });

  it("gives up a right that is denied while no connection has failed", async () => {
    const mayUse = reviewer();
    granted.add("get connectors team-a/harbor");
    expect(await mayUse(who, harbor, "pull")).to.have.property("ok", true);
    granted.clear();
    time += 61_000;
    expect(await mayUse(who, harbor, "pull")).to.have.property("ok", false);
  });

  it("asks for the right to read the connector", async () => {
    granted.add("get connectors team-a/harbor");
    const mayUse = reviewer();
    for (const verb of ["pull", "push"] as const) {
      expect(await mayUse(who, harbor, verb)).to.deep.equal({ ok: true, value: undefined });
    }
    const reason = reasonOf(await mayUse(who, { ...harbor, name: "other" }, "pull"));
    expect(reason).to.equal(
      'allow system:serviceaccount:team-a:builder to get connectors.connectors.alauda.io "other" in namespace team-a, if there is one: ' +
        "bind it there to a Role with rules: [{apiGroups: [connectors.alauda.io], resources: [connectors], resourceNames: [other], verbs: [get]}]",
    );
  });

  it("asks for more where that is wanted, and names all that is missing", async () => {
    granted.add("get connectors team-a/harbor");
    const mayUse = reviewer({ separatePush: true, requireProxyVerb: true });
    expect(reasonOf(await mayUse(who, harbor, "pull"))).to.contain(
      'to get connectors.connectors.alauda.io/proxy "harbor"',
    );
    time += 10_000;
    granted.add("get connectors/proxy team-a/harbor");
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(true);
    expect(reasonOf(await mayUse(who, harbor, "push"))).to.contain(
      "resources: [connectors/proxy], resourceNames: [harbor], verbs: [update]",
    );
    time += 10_000;
    granted.add("update connectors/proxy team-a/harbor");
    expect((await mayUse(who, harbor, "push")).ok).to.equal(true);
  });

  it("asks nothing about ServiceAccounts of the connector's namespace where they need no right", async () => {
    const mayUse = reviewer({
      separatePush: true,
      requireProxyVerb: true,
      defaultPermission: "namespace",
    });
    for (const verb of ["pull", "push"] as const) {
      expect(await mayUse(who, harbor, verb)).to.deep.equal({ ok: true, value: undefined });
    }
    expect(asked).to.deep.equal([]);
    const strangers = ["team-b", "team-a-2", "team"];
    for (const namespace of strangers) {
      const reason = reasonOf(await mayUse(who, { namespace, name: "harbor" }, "pull"));
      expect(reason).to.contain(`in namespace ${namespace}`);
    }
    expect(asked).to.include("get connectors team-b/harbor");
  });

  it("asks about users that are no ServiceAccount whatever needs no right", async () => {
    const mayUse = reviewer({ defaultPermission: "namespace" });
    for (const user of ["team-a:builder", "serviceaccount:team-a:builder", "", "admin"]) {
      expected = { user, groups: [] };
      reasonOf(await mayUse(expected, harbor, "pull"));
    }
    expect(asked).to.have.length(4);
  });

  it("asks once a minute for a right that is there, and after seconds for another one", async () => {
    const mayUse = reviewer();
    reasonOf(await mayUse(who, harbor, "pull"));
    granted.add("get connectors team-a/harbor");
    time += 4_999;
    reasonOf(await mayUse(who, harbor, "pull"));
    time += 1;
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(true);
    granted.clear();
    time += 59_999;
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(true);
    expect(asked).to.have.length(2);
    time += 1;
    reasonOf(await mayUse(who, harbor, "pull"));
  });

  it("asks about a right that is there as seldom as it is told to", async () => {
    granted.add("get connectors team-a/harbor");
    const mayUse = reviewer({ allowedMs: 300_000 });
    await mayUse(who, harbor, "pull");
    time += 299_999;
    await mayUse(who, harbor, "pull");
    expect(asked).to.have.length(1);
    time += 1;
    await mayUse(who, harbor, "pull");
    expect(asked).to.have.length(2);
  });

  it("remembers rights while the API server is away, and knows of no others", async () => {
    granted.add("get connectors team-a/harbor");
    const mayUse = reviewer();
    await mayUse(who, harbor, "pull");
    server.intercept = () => ({ status: 503 });
    time += 9 * 60_000;
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(true);
    const other = { ...harbor, name: "other" };
    expect(await mayUse(who, other, "pull").catch((e: unknown) => e)).to.be.instanceOf(Unavailable);
    time += 60_000;
    expect(await mayUse(who, harbor, "pull").catch((e: unknown) => e)).to.be.instanceOf(
      Unavailable,
    );
  });

  it("asks once for all names that don't exist, and tells only those who may know", async () => {
    const existing = new Set(["team-a/harbor"]);
    const findConnector: FindConnector = async (ref) => {
      const name = `${ref.namespace}/${ref.name}`;
      if (!existing.has(name)) return { state: "missing", reason: "there is none" };
      return { state: "invalid", reason: "its content does not matter here" };
    };
    const mayUse = reviewer({ findConnector });
    const use = (name: string): Promise<Result<void>> => mayUse(who, { ...harbor, name }, "pull");
    const names = Array.from({ length: 300 }, (_, number) => `made-up-${number}`);
    const refusals = (await Promise.all(names.map(use))).map(reasonOf);
    expect(asked).to.deep.equal(["get connectors team-a/undefined"]);
    const exists = reasonOf(await use("harbor"));
    expect(refusals[7]?.replaceAll("made-up-7", "harbor")).to.equal(exists);

    granted.add("get connectors team-a/undefined");
    time += 5_000;
    const answers = await Promise.all(names.map(use));
    expect(answers.every(({ ok }) => ok)).to.equal(true);
    expect(asked).to.have.length(3);
  });

  it("lets those know of a connector's deletion who could use it before", async () => {
    let exists = true;
    const findConnector: FindConnector = async () =>
      exists ? { state: "invalid", reason: "" } : { state: "missing", reason: "it was deleted" };
    const mayUse = reviewer({ findConnector });
    granted = new Set(["get connectors team-a/harbor"]);
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(true);
    exists = false;
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(true);
    expect((await mayUse(who, { ...harbor, name: "another" }, "pull")).ok).to.equal(false);
    time += 60_000; // no longer than the right would serve
    expect((await mayUse(who, harbor, "pull")).ok).to.equal(false);
  });

  it("asks a few things at once, and the namespaces of those who ask take turns", async () => {
    granted = new Set(["get connectors team-b/harbor"]);
    let underWay = 0;
    let most = 0;
    const served: string[] = [];
    server.intercept = ({ body }) => {
      underWay -= 1;
      const { user } = (body as ReviewBody).spec;
      served.push(user);
      return { status: 201, body: { status: { allowed: user.includes(":team-b:") } } };
    };
    server.delay = async () => {
      underWay += 1;
      most = Math.max(most, underWay);
      await new Promise((resolve) => setTimeout(resolve, 5));
    };
    let rejected = 0;
    const mayUse = reviewer({ onReject: () => (rejected += 1) });
    const flood = Array.from({ length: 2_000 }, (_, number) =>
      mayUse(who, { ...harbor, name: `n${number}` }, "pull").then(
        () => "answered",
        (error: unknown) => (error as Error).name,
      ),
    );
    const neighbour = { ...who, user: "system:serviceaccount:team-b:builder" };
    const answer = await mayUse(neighbour, { namespace: "team-b", name: "harbor" }, "pull");
    server.delay = undefined;
    expect(answer.ok).to.equal(true);
    expect(served.length).to.be.below(20);
    const outcomes = await Promise.all(flood);
    expect(most).to.be.within(1, 4);
    expect(rejected).to.be.greaterThan(1_000);
    expect(outcomes.filter((outcome) => outcome === "Unavailable")).to.have.length(rejected);
  });

  it("does not blame those who ask when it may not ask itself", async () => {
    const forbidden = statusOf(403, "subjectaccessreviews is forbidden");
    server.intercept = () => ({ status: 403, body: forbidden });
    const error = await reviewer()(who, harbor, "pull").catch((e: unknown) => e);
    expect(error).to.be.instanceOf(Unavailable);
    expect(String(error)).to.contain("subjectaccessreviews is forbidden");
  });
});
