import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/**
 * What the roles count, for Prometheus; docs/metrics.md has the table. Labels are connectors that
 * there are, operations and codes: never a volume, a repository or a Pod, of which there is no end.
 */
export interface Metrics {
  readonly proxy: ProxyMetrics;
  readonly csi: CsiMetrics;
  readonly controller: ControllerMetrics;
  readonly api: ApiMetrics;
  /** What a scrape gets: the Content-Type, and the text. */
  scrape(): Promise<readonly [type: string, text: string]>;
}

export type MeteredRole = "proxy" | "csi" | "controller";

/** The metrics of the role that runs in this process, and of the process itself. */
export function createMetrics(role: MeteredRole): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  /** A role that does not run here counts into nothing. */
  const unseen = new Registry();
  const registersOf = (...roles: readonly MeteredRole[]): Registry[] => [
    roles.includes(role) ? registry : unseen,
  ];
  return {
    proxy: createProxyMetrics(registersOf("proxy")),
    csi: createCsiMetrics(registersOf("csi")),
    controller: createControllerMetrics(registersOf("controller")),
    api: createApiMetrics(registersOf("proxy", "csi")),
    scrape: async () => [registry.contentType, await registry.metrics()],
  };
}

/** Answers of the API server that requests and volumes wait for. */
export interface ApiMetrics {
  /** Whose token is it? */
  readonly token: CountLookup;
  /** May they use the connector? */
  readonly access: CountLookup;
  /** What is in its Secrets? */
  readonly secret: CountLookup;
}

/** @param outcome where an answer came from; `stale` is a kept one, for want of a new one */
type CountLookup = (outcome: "cached" | "asked" | "stale" | "failed") => void;

function createApiMetrics(registers: Registry[]): ApiMetrics {
  const lookups = new Counter({
    name: "oci_connector_api_lookups_total",
    help: "Answers of the API server that were needed, by where they came from.",
    labelNames: ["kind", "outcome"],
    registers,
  });
  const telling =
    (kind: keyof ApiMetrics): CountLookup =>
    (outcome) =>
      lookups.inc({ kind, outcome });
  return { token: telling("token"), access: telling("access"), secret: telling("secret") };
}

/** Seconds: from what is answered at once to what somebody would complain about. */
const callBucketsSeconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];

export interface CsiMetrics {
  /** @param code of gRPC: `OK`, `NOT_FOUND` */
  called(operation: "publish" | "unpublish", code: string, durationSeconds: number): void;
  /** How many volumes there are. */
  volumes(count: number): void;
}

function createCsiMetrics(registers: Registry[]): CsiMetrics {
  const calls = new Counter({
    name: "oci_connector_csi_calls_total",
    help: "Calls of the kubelet.",
    labelNames: ["operation", "code"],
    registers,
  });
  const duration = new Histogram({
    name: "oci_connector_csi_call_duration_seconds",
    help: "How long the kubelet waited.",
    labelNames: ["operation"],
    buckets: callBucketsSeconds,
    registers,
  });
  const volumes = new Gauge({
    name: "oci_connector_csi_volumes",
    help: "Volumes that were published, or refreshed, since this process began, and are still mounted.",
    registers,
  });
  return {
    called(operation, code, durationSeconds) {
      calls.inc({ operation, code });
      duration.observe({ operation }, durationSeconds);
    },
    volumes: (count) => volumes.set(count),
  };
}

export interface ControllerMetrics {
  reconciled(outcome: string, durationSeconds: number): void;
  /** The conditions of a connector, as they are now: type → status. */
  conditions(connector: string, conditions: ReadonlyMap<string, string>): void;
  /** A connector that is gone has no conditions. */
  forget(connector: string): void;
}

function createControllerMetrics(registers: Registry[]): ControllerMetrics {
  const reconciles = new Counter({
    name: "oci_connector_controller_reconciles_total",
    help: "Connectors that were looked at.",
    labelNames: ["outcome"],
    registers,
  });
  const duration = new Histogram({
    name: "oci_connector_controller_reconcile_duration_seconds",
    help: "How long a look took, probes included.",
    buckets: callBucketsSeconds,
    registers,
  });
  const condition = new Gauge({
    name: "oci_connector_connector_condition",
    help: "Conditions of connectors: 1 for the status that a condition has.",
    labelNames: ["connector", "condition", "status"],
    registers,
  });
  const known = new Map<string, ReadonlyMap<string, string>>();
  const forget = (connector: string): void => {
    for (const [type, status] of known.get(connector) ?? []) {
      condition.remove({ connector, condition: type, status });
    }
    known.delete(connector);
  };
  return {
    reconciled(outcome, durationSeconds) {
      reconciles.inc({ outcome });
      duration.observe(durationSeconds);
    },
    conditions(connector, conditions) {
      forget(connector);
      known.set(connector, new Map(conditions));
      for (const [type, status] of conditions) {
        condition.set({ connector, condition: type, status }, 1);
      }
    },
    forget,
  };
}

export interface ProxyMetrics {
  requestStarted(): void;
  requestEnded(request: EndedRequest): void;
  /** A request needed a registry token. */
  tokenNeeded(connector: string, outcome: "fetched" | "refused" | "failed" | "cached"): void;
  /** A connector that is gone has no series. */
  forget(connector: string): Promise<void>;
}

interface EndedRequest {
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

function createProxyMetrics(registers: Registry[]): ProxyMetrics {
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
