import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/**
 * What the roles count, for Prometheus. Labels are connectors, operations and codes: never a volume, a
 * repository or a Pod, of which there is no end.
 */
export interface Metrics {
  readonly proxy: ProxyMetrics;
  readonly csi: CsiMetrics;
  readonly controller: ControllerMetrics;
  /** What a scrape gets: the Content-Type, and the text. */
  scrape(): Promise<readonly [type: string, text: string]>;
}

export interface ProxyMetrics {
  requestStarted(): void;
  requestEnded(request: EndedRequest): void;
  /** A request needed a registry token. */
  tokenNeeded(connector: string, outcome: "fetched" | "refused" | "failed" | "cached"): void;
}

export interface EndedRequest {
  /** `namespace/name`, empty where the request named none that there is. */
  readonly connector: string;
  /** `pull manifest`, `push upload`: verb and kind. */
  readonly operation: string;
  /** HTTP status; 499 where the client went away first. */
  readonly code: number;
  readonly durationSeconds: number;
  /** Of bodies: from the client, and to it. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
}

export interface CsiMetrics {
  /** @param code of gRPC: `OK`, `NOT_FOUND` */
  called(operation: "publish" | "unpublish", code: string, durationSeconds: number): void;
}

export interface ControllerMetrics {
  reconciled(outcome: string, durationSeconds: number): void;
  /** The conditions of a connector, as they are now. */
  conditions(connector: string, conditions: ReadonlyMap<string, string>): void;
  /** A connector that is gone has no conditions. */
  forget(connector: string): void;
}

/** Up to an hour: a push may be large. */
const requestBuckets = [0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600, 3600];
const callBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];

export type MeteredRole = "proxy" | "csi" | "controller";

/** The metrics of the roles that run in this process, and of the process itself. */
export function createMetrics(roles: readonly MeteredRole[]): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  /** A role that does not run here counts into nothing. */
  const unseen = new Registry();
  const registersOf = (role: MeteredRole): Registry[] => [roles.includes(role) ? registry : unseen];
  return {
    proxy: proxyMetrics(registersOf("proxy")),
    csi: csiMetrics(registersOf("csi")),
    controller: controllerMetrics(registersOf("controller")),
    scrape: async () => [registry.contentType, await registry.metrics()],
  };
}

function proxyMetrics(registers: Registry[]): ProxyMetrics {
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
    buckets: requestBuckets,
    registers,
  });
  const bytes = new Counter({
    name: "oci_connector_proxy_bytes_total",
    help: "Bytes of bodies, received from clients and sent to them.",
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
      const { connector, operation, code } = request;
      inFlight.dec();
      requests.inc({ connector, operation, code });
      duration.observe({ operation }, request.durationSeconds);
      bytes.inc({ connector, direction: "received" }, request.bytesReceived);
      bytes.inc({ connector, direction: "sent" }, request.bytesSent);
    },
    tokenNeeded: (connector, outcome) => tokens.inc({ connector, outcome }),
  };
}

function csiMetrics(registers: Registry[]): CsiMetrics {
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
    buckets: callBuckets,
    registers,
  });
  return {
    called(operation, code, durationSeconds) {
      calls.inc({ operation, code });
      duration.observe({ operation }, durationSeconds);
    },
  };
}

function controllerMetrics(registers: Registry[]): ControllerMetrics {
  const reconciles = new Counter({
    name: "oci_connector_controller_reconciles_total",
    help: "Connectors that were looked at.",
    labelNames: ["outcome"],
    registers,
  });
  const duration = new Histogram({
    name: "oci_connector_controller_reconcile_duration_seconds",
    help: "How long a look took, probes included.",
    buckets: callBuckets,
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
