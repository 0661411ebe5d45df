import { showRef } from "../connector/connector-ref.ts";
import type { Log, LogFields } from "../log.ts";
import type { ProxyMetrics } from "../metrics/proxy-metrics.ts";
import type { ProxyObserver } from "../proxy/proxy.ts";
import type { RequestReport } from "../proxy/request-report.ts";

/**
 * Creates an observer that writes a line of the audit log for every request, and counts it. docs/audit-log.md has the
 * fields.
 */
export function createProxyObserver(log: Log, metrics?: ProxyMetrics): ProxyObserver {
  return {
    requestStarted: () => metrics?.requestStarted(),
    requestEnded(report) {
      log("info", "request", auditFields(report), report.identity ?? "stranger");
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
    connectionShed: (reason) => metrics?.connectionShed(reason),
  };
}

function auditFields(report: RequestReport): LogFields {
  const { identity, ref } = report;
  const pod = identity?.pod;
  return {
    user: identity?.user,
    pod: pod && `${pod.namespace}/${pod.name}`,
    tokenExpired: identity?.isExpired,
    host: report.host,
    image: report.image,
    connector: ref && showRef(ref),
    repository: report.repository,
    reference: report.reference,
    method: report.method,
    verb: report.verb,
    decision: report.decision,
    reason: report.reason,
    status: report.status,
    upstreamStatus: report.upstreamStatus,
    bytesReceived: report.bytesReceived,
    bytesSent: report.bytesSent,
    durationMs: report.durationMs,
  };
}
