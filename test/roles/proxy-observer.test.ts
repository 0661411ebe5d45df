import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { createLog } from "../../src/log.ts";
import type { RequestReport } from "../../src/proxy/request-report.ts";
import { createProxyObserver } from "../../src/roles/proxy-observer.ts";

const least: RequestReport = {
  method: "GET",
  operation: "none",
  decision: "refused",
  status: 404,
  identity: undefined,
  host: undefined,
  image: undefined,
  ref: undefined,
  connector: undefined,
  verb: undefined,
  repository: undefined,
  reference: undefined,
  reason: undefined,
  upstreamStatus: undefined,
  bytesReceived: 80,
  bytesSent: 200,
  durationMs: 1,
};
const push: RequestReport = {
  method: "PUT",
  operation: "push manifest",
  verb: "push",
  decision: "allowed",
  identity: {
    user: "system:serviceaccount:team-a:builder",
    groups: ["system:authenticated"],
    subject: "system:serviceaccount:team-a:builder/uid-1",
    pod: { namespace: "team-a", name: "build-1" },
  },
  host: undefined,
  image: undefined,
  ref: { namespace: "team-a", name: "harbor" },
  connector: "team-a/harbor",
  repository: "app/web",
  reference: "1.4",
  reason: undefined,
  status: 201,
  upstreamStatus: 201,
  bytesReceived: 2113,
  bytesSent: 412,
  durationMs: 184,
};

describe("the audit log", () => {
  const lineOf = (report: RequestReport): Record<string, unknown> => {
    const lines: string[] = [];
    const log = createLog(
      (line) => lines.push(line),
      () => Date.parse("2026-03-01T09:30:00Z"),
    );
    createProxyObserver(log).requestEnded(report);
    expect(lines).to.have.length(1);
    return JSON.parse(lines[0] ?? "") as Record<string, unknown>;
  };
  let text: string;
  /** Of docs/audit-log.md: each field, and when it is there. */
  let documented: ReadonlyMap<string, string>;

  before(async () => {
    text = await readFile(join(import.meta.dirname, "../../docs/audit-log.md"), "utf8");
    const rows = text.matchAll(/^\| `(\w+)` \| ([^|]+) \|.*\|.*\|$/gm);
    documented = new Map([...rows].map(([, field = "", when = ""]) => [field, when]));
  });

  it("has the fields of docs/audit-log.md, in that order", () => {
    const line = lineOf({
      ...push,
      host: "github.com:443",
      image: "harbor.example.com/app/web:1.4",
      reason: "why",
      ...(push.identity && { identity: { ...push.identity, isExpired: true } }),
    });
    expect(Object.keys(line)).to.deep.equal([...documented.keys()]);
  });

  it("always has those of which that is said", () => {
    const always = [...documented].filter(([, when]) => when === "always");
    expect(Object.keys(lineOf(least))).to.deep.equal(always.map(([field]) => field));
  });

  it("looks as it is shown", () => {
    const example = /^```json\n(.*)\n```$/m.exec(text)?.[1] ?? "";
    expect(JSON.stringify(lineOf(push))).to.equal(example);
  });
});
