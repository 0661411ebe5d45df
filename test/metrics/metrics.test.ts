import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import {
  createMetrics,
  type DroppedLines,
  type MeteredRole,
  type Metrics,
} from "../../src/metrics/metrics.ts";

const roles: readonly MeteredRole[] = ["proxy", "csi", "controller", "node-images"];

const request = {
  connector: "team-a/harbor",
  operation: "pull manifest",
  code: 200,
  durationSeconds: 0.1,
  bytesReceived: 10,
  bytesSent: 20,
};

const droppedLines = (): readonly DroppedLines[] => [
  { source: "stranger", reason: "rate", count: 7 },
  { source: "subject", reason: "queue", count: 0 },
];

/** Counts something in each metric there is. */
function touch({ proxy, csi, controller, nodeImages, api, identities }: Metrics): void {
  proxy.requestStarted();
  proxy.requestEnded(request);
  proxy.tokenNeeded("team-a/harbor", "fetched");
  proxy.connectionShed("connections");
  csi.called("publish", { code: "OK", reason: "OK", durationSeconds: 0.1 });
  csi.volumes(3);
  controller.reconciled("ready", 0.1);
  controller.conditions("team-a/harbor", new Map([["Ready", "True"]]));
  nodeImages.skipped(1);
  api.token("asked");
  api.access("cached");
  api.secret("stale");
  api.rejected("token");
  identities.attempted("team-a/quay", "oidcAuth", "obtained");
  const expiresAt = Date.now() + 60_000;
  identities.readAtScrape(() => [{ connector: "team-a/quay", method: "oidcAuth", expiresAt }]);
}

interface Described {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
}

/** What a scrape says: the names of metrics, their types, and the labels of their series. */
function describedIn(text: string): readonly Described[] {
  const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
  return types.map(([, name = "", type = ""]) => {
    const series = [
      ...text.matchAll(new RegExp(`^${name}(?:_bucket|_sum|_count)?(?:{(.*)})? `, "gm")),
    ];
    const labels = series.flatMap(([, found = ""]) =>
      [...found.matchAll(/([a-z]+)="/g)].map(([, label = ""]) => label),
    );
    return { name, type, labels: [...new Set(labels)].filter((label) => label !== "le") };
  });
}

describe("the metrics", () => {
  const lines = async (metrics: Metrics, name: string): Promise<readonly string[]> =>
    (await metrics.scrape())[1].split("\n").filter((line) => line.startsWith(name));

  describe("are those of docs/metrics.md", () => {
    const row = /^\| `(oci_connector_\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|/gm;
    let documented: readonly (Described & { readonly roles: readonly string[] })[];
    before(async () => {
      const text = await readFile(join(import.meta.dirname, "../../docs/metrics.md"), "utf8");
      documented = [...text.matchAll(row)].map(
        ([, name = "", type = "", labels = "", where = ""]) => ({
          name,
          type,
          roles: where.split(", "),
          labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = ""]) => label),
        }),
      );
    });

    for (const role of roles) {
      it(`in the ${role} role`, async () => {
        const metrics = createMetrics(role, droppedLines);
        touch(metrics);
        const [, text] = await metrics.scrape();
        const served = describedIn(text);
        const ours = served.filter(({ name }) => name.startsWith("oci_connector_"));
        const expected = documented.filter(({ roles: where }) => where.includes(role));
        for (const { name } of ours) expect(text).to.match(new RegExp(`^${name}[_{ ].*\\d$`, "m"));
        expect(ours).to.have.deep.members(
          expected.map(({ name, type, labels }) => ({ name, type, labels })),
        );
        const others = served.filter((one) => !ours.includes(one));
        for (const { name } of others) expect(name).to.match(/^(process|nodejs)_/);
      });
    }

    it("and none more", () => {
      for (const { name, roles: where } of documented) {
        expect(
          where.every((role) => roles.some((other) => other === role)),
          name,
        ).to.equal(true);
      }
    });
  });

  it("say whether the kubelet has registered the driver, when they are scraped", async () => {
    const metrics = createMetrics("csi", droppedLines);
    const name = "oci_connector_csi_registered";
    expect(await lines(metrics, name)).to.deep.equal([`${name} 0`]);
    let isRegistered = true;
    metrics.csi.registration(() => isRegistered);
    expect(await lines(metrics, name)).to.deep.equal([`${name} 1`]);
    isRegistered = false;
    expect(await lines(metrics, name)).to.deep.equal([`${name} 0`]);
  });

  it("keep codes that a registry makes up from becoming series without end", async () => {
    const metrics = createMetrics("proxy", droppedLines);
    for (let code = 100; code < 1000; code += 1) {
      metrics.proxy.requestStarted();
      metrics.proxy.requestEnded({ ...request, code });
    }
    const codes = (await lines(metrics, "oci_connector_proxy_requests_total{")).map(
      (line) => /code="(\w+)"/.exec(line)?.[1] ?? "",
    );
    expect(codes).to.include.members(["200", "499", "2xx", "4xx", "other"]);
    expect(codes.length).to.be.lessThan(30);
  });

  it("forget a connector that is gone, and no other", async () => {
    const metrics = createMetrics("proxy", droppedLines);
    touch(metrics);
    metrics.proxy.requestEnded({ ...request, connector: "team-a/harbor2" });
    await metrics.proxy.forget("team-a/harbor");
    const [, text] = await metrics.scrape();
    expect(text).not.to.contain('"team-a/harbor"');
    expect(text).to.contain('"team-a/harbor2"');
  });

  it("show the conditions of a connector as they are, and none of one that is gone", async () => {
    const metrics = createMetrics("controller", droppedLines);
    const shown = (): Promise<readonly string[]> =>
      lines(metrics, "oci_connector_connector_condition{");
    const series = (condition: string, status: string): string =>
      `oci_connector_connector_condition{connector="team-a/harbor",condition="${condition}",status="${status}"} 1`;
    metrics.controller.conditions("team-a/harbor", new Map([["Ready", "True"]]));
    const later = { Ready: "False", SecretReady: "False" };
    metrics.controller.conditions("team-a/harbor", new Map(Object.entries(later)));
    expect(await shown()).to.have.members([
      series("Ready", "False"),
      series("SecretReady", "False"),
    ]);
    metrics.controller.forget("team-a/harbor");
    expect(await shown()).to.deep.equal([]);
  });
});
