import { Counter, Gauge, Histogram, type Registry } from "prom-client";

export interface ProxyMetrics {
  requestStarted(): void;
  requestEnded(request: EndedRequest): void;
  /** A request needed a registry token. */
  tokenNeeded(connector: string, outcome: "fetched" | "refused" | "failed" | "cached"): void;
  /** A connector that is gone has no series. */
  forget(connector: string): Promise<void>;
}

export interface EndedRequest {
  /** `namespace/name`, empty where the request named none that there is. */
  readonly connector: string;
  /** `pull manifest`, `push upload`: verb and kind. */
  readonly operation: string;
  /** HTTP status; 499 where the client went away first. */
  readonly code: number;
  readonly durationSeconds: number;
  /** Of the connection, so heads are counted too. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
}

/** Seconds, up to an hour: a push may be large. */
const requestBucketsSeconds = [0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600, 3600];

export function createProxyMetrics(registers: Registry[]): ProxyMetrics {
  const requests = new Counter({
    name: "oci_connector_proxy_requests_total",
    help: "Requests that were answered, or given up.",
    labelNames: ["connector", "operation", "code"],
    registers,
  });
  const duration = new Histogram({
    name: "oci_connector_proxy_request_duration_seconds",
    help: "From a request's head to the end of its answer.",
    labelNames: ["operation"],
    buckets: requestBucketsSeconds,
    registers,
  });
  const bytes = new Counter({
    name: "oci_connector_proxy_bytes_total",
    help: "Bytes received from clients and sent to them, heads included.",
    labelNames: ["connector", "direction"],
    registers,
  });
  const inFlight = new Gauge({
    name: "oci_connector_proxy_requests_in_flight",
    help: "Requests that are under way.",
    registers,
  });
  const tokens = new Counter({
    name: "oci_connector_proxy_upstream_tokens_total",
    help: "Registry tokens that requests needed, by where they came from.",
    labelNames: ["connector", "outcome"],
    registers,
  });
  return {
    requestStarted: () => inFlight.inc(),
    requestEnded(request) {
      const { connector, operation } = request;
      inFlight.dec();
      requests.inc({ connector, operation, code: codeLabel(request.code) });
      duration.observe({ operation }, request.durationSeconds);
      bytes.inc({ connector, direction: "received" }, request.bytesReceived);
      bytes.inc({ connector, direction: "sent" }, request.bytesSent);
    },
    tokenNeeded: (connector, outcome) => tokens.inc({ connector, outcome }),
    async forget(connector) {
      await Promise.all([
        removeSeries(requests, connector),
        removeSeries(bytes, connector),
        removeSeries(tokens, connector),
      ]);
    },
  };
}

async function removeSeries<Label extends string>(
  counter: Counter<Label | "connector">,
  connector: string,
): Promise<void> {
  const { values } = await counter.get();
  for (const { labels } of values) {
    if (labels.connector === connector) counter.remove(labels);
  }
}

/** Statuses of the registry API, and of proxies. */
const knownCodes: ReadonlySet<number> = new Set([
  ...[200, 201, 202, 204, 206, 304, 307],
  ...[400, 401, 403, 404, 405, 409, 411, 413, 416, 429, 499],
  ...[500, 501, 502, 503, 504],
]);

/** A registry, and so a tenant, chooses what it answers: what it makes up must not become series without end. */
function codeLabel(code: number): string {
  if (knownCodes.has(code)) return String(code);
  const first = Math.trunc(code / 100);
  return first >= 1 && first <= 5 ? `${first}xx` : "other";
}
