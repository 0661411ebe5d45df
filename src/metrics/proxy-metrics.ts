import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Counts the requests of the proxy. */
export interface ProxyMetrics {
  requestStarted(): void;
  requestEnded(request: EndedRequest): void;
  /** Counts a registry token that a request needed. */
  tokenNeeded(connector: string, outcome: "fetched" | "refused" | "failed" | "cached"): void;
  /** Counts a connection that was ended at a bound. */
  connectionShed(reason: "bodies" | "connections" | "handshakes" | "heads" | "pipelining"): void;
  /** Removes the series of a connector that is gone. */
  forget(connector: string): Promise<void>;
}

interface EndedRequest {
  /** `namespace/name`, empty where the request named no connector that exists. */
  readonly connector: string;
  /** Verb and kind: `pull manifest`, `push upload`. */
  readonly operation: string;
  /** HTTP status; 499 where the client went away first. A response that the proxy ended counts by the reason for that. */
  readonly code: number;
  readonly durationSeconds: number;
  /** Bytes that came on the connection, heads included. */
  readonly bytesReceived: number;
  /** Bytes that were sent on the connection, heads included. */
  readonly bytesSent: number;
}

/** Buckets of requests, up to an hour: a push may be large. */
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
  const shed = new Counter({
    name: "oci_connector_proxy_connections_shed_total",
    help: "Connections of clients that were ended at a bound, by the bound.",
    labelNames: ["reason"],
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
    connectionShed: (reason) => shed.inc({ reason }),
    async forget(connector) {
      await Promise.all([
        removeSeries(requests, connector),
        removeSeries(bytes, connector),
        removeSeries(tokens, connector),
      ]);
    },
  };
}

/** Removes the series of a connector from a metric. */
export async function removeSeries<Label extends string>(
  counter: Counter<Label | "connector">,
  connector: string,
): Promise<void> {
  const { values } = await counter.get();
  for (const { labels } of values) {
    if (labels.connector === connector) counter.remove(labels);
  }
}

/** Statuses of the registry API and of proxies; each of them is a label of its own. */
const knownCodes: ReadonlySet<number> = new Set([
  200, 201, 202, 204, 206, 304, 307, 400, 401, 403, 404, 405, 409, 411, 413, 416, 429, 499, 500,
  501, 502, 503, 504,
]);

/**
 * The label of a status. A registry, and so a tenant, chooses its statuses: those that it makes up must not become
 * series without bound.
 */
function codeLabel(code: number): string {
  if (knownCodes.has(code)) return String(code);
  const first = Math.trunc(code / 100);
  return first >= 1 && first <= 5 ? `${first}xx` : "other";
}
