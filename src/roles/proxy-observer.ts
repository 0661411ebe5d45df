import { showRef } from "../connector/connector-ref.ts";
import type { Log } from "../log.ts";
import type { ProxyMetrics } from "../metrics.ts";
import type { ProxyObserver } from "../proxy/proxy.ts";
import type { RequestReport } from "../proxy/request-report.ts";

/** Writes a line of the audit log for every request, and counts it. docs/audit-log.md has the fields. */
export function observeProxy(log: Log, metrics?: ProxyMetrics): ProxyObserver {
  return {
    requestStarted: () => metrics?.requestStarted(),
    requestEnded(report) {
      log("info", "request", auditFields(report));
      metrics?.requestEnded({
        connector: report.connector ?? "",
        operation: report.operation,
        code: report.status,
        durationSeconds: report.durationMs / 1000,
        bytesReceived: report.bytesReceived,
        bytesSent: report.bytesSent,
      });
    },
    tokenNeeded: (connector, outcome) => metrics?.tokenNeeded(connector, outcome),
  };
}

function auditFields(report: RequestReport): Parameters<Log>[2] {
  const { identity, ref, repository, reference, verb, reason, upstreamStatus } = report;
  const pod = identity?.pod;
  return {
    ...(identity && { user: identity.user }),
    ...(pod && { pod: `${pod.namespace}/${pod.name}` }),
    ...(ref && { connector: showRef(ref) }),
    ...(repository !== undefined && { repository }),
    ...(reference !== undefined && { reference }),
    method: report.method,
    ...(verb && { verb }),
    decision: report.decision,
    ...(reason !== undefined && { reason }),
    status: report.status,
    ...(upstreamStatus !== undefined && { upstreamStatus }),
    bytesReceived: report.bytesReceived,
    bytesSent: report.bytesSent,
    durationMs: report.durationMs,
  };
}
