import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { createProxyMetrics, type ProxyMetrics, removeSeries } from "./proxy-metrics.ts";

/**
 * What the roles count for Prometheus; docs/metrics.md has the table. Labels are connectors that exist, operations and
 * codes. They are never volumes, repositories or Pods, since the number of these has no bound.
 */
export interface Metrics {
  readonly proxy: ProxyMetrics;
  readonly csi: CsiMetrics;
  readonly controller: ControllerMetrics;
  readonly nodeImages: NodeImagesMetrics;
  readonly api: ApiMetrics;
  readonly identities: IdentityMetrics;
  /** The Content-Type and the body of the response to a scrape. */
  scrape(): Promise<readonly [type: string, body: string]>;
}

/** A role that has metrics. */
export type MeteredRole = "proxy" | "csi" | "controller" | "node-images";

/**
 * Creates the metrics of the role that runs in this process, and of the process itself.
 * @param droppedLines how many lines the process's log has left out so far
 */
export function createMetrics(
  role: MeteredRole,
  droppedLines: () => readonly DroppedLines[],
): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  registerLogMetric(registry, droppedLines);
  /** Takes the metrics of roles that do not run here; nobody scrapes it. */
  const unscraped = new Registry();
  const registersOf = (...roles: readonly MeteredRole[]): Registry[] => [
    roles.includes(role) ? registry : unscraped,
  ];
  return {
    proxy: createProxyMetrics(registersOf("proxy")),
    csi: createCsiMetrics(registersOf("csi")),
    controller: createControllerMetrics(registersOf("controller")),
    nodeImages: createNodeImagesMetrics(registersOf("node-images")),
    api: createApiMetrics(registersOf("proxy", "csi")),
    identities: createIdentityMetrics(registersOf("proxy", "controller")),
    scrape: async () => [registry.contentType, await registry.metrics()],
  };
}

/** How many lines the log has left out since the process began. */
export interface DroppedLines {
  /** Who caused them: `process`, `stranger` (a request without an identity) or `subject` (one with an identity). */
  readonly source: "process" | "stranger" | "subject";
  /** `rate` where there were too many in a short time, `queue` where too many waited to be written. */
  readonly reason: "rate" | "queue";
  readonly count: number;
}

/** The log begins before a role has metrics, and counts for itself: its numbers are read at a scrape. */
function registerLogMetric(registry: Registry, droppedLines: () => readonly DroppedLines[]): void {
  new Counter({
    name: "oci_connector_log_dropped_lines_total",
    help: "Lines that the log has left out, by whose they were and why.",
    labelNames: ["source", "reason"],
    registers: [registry],
    collect() {
      this.reset();
      for (const { source, reason, count } of droppedLines()) this.inc({ source, reason }, count);
    },
  });
}

/** Counts what requests and volumes need to know from the API server. */
export interface ApiMetrics {
  /** TokenReviews: whose token is it? */
  readonly token: CountLookup;
  /** SubjectAccessReviews: may they use the connector? */
  readonly access: CountLookup;
  /** A connector's Secrets. */
  readonly secret: CountLookup;
  /** Counts a question that was not asked, since too many others wait for the API server. */
  rejected(kind: LookupKind): void;
}

/** What is looked up in the API server. */
type LookupKind = "token" | "access" | "secret";

/**
 * Counts a lookup.
 * @param outcome where the result came from: `asked` from the API server, `unasked` where it was known without, `cached`
 *   from the cache, `stale` from the cache for want of a new one; `failed` where there was none
 */
type CountLookup = (outcome: "cached" | "asked" | "unasked" | "stale" | "failed") => void;

function createApiMetrics(registers: Registry[]): ApiMetrics {
  const lookups = new Counter({
    name: "oci_connector_api_lookups_total",
    help: "Answers of the API server that were needed, by where they came from.",
    labelNames: ["kind", "outcome"],
    registers,
  });
  const rejections = new Counter({
    name: "oci_connector_api_rejections_total",
    help: "Questions that were not asked, since too many others were waiting for the API server.",
    labelNames: ["kind"],
    registers,
  });
  const countOf =
    (kind: LookupKind): CountLookup =>
    (outcome) =>
      lookups.inc({ kind, outcome });
  return {
    token: countOf("token"),
    access: countOf("access"),
    secret: countOf("secret"),
    rejected: (kind) => rejections.inc({ kind }),
  };
}

/** A login that was made of an identity, and lives. */
export interface LivingLogin {
  /** `namespace/name` of the connector. */
  readonly connector: string;
  /** The method of its `spec.auth`: `oidcAuth`. */
  readonly method: string;
  /** In milliseconds since 1970. */
  readonly expiresAt: number;
}

/** Counts the logins that are made of identities. */
export interface IdentityMetrics {
  /** Counts an attempt to get a login. */
  attempted(connector: string, method: string, outcome: "obtained" | "failed"): void;
  /** Says where the logins that live are read at a scrape. */
  readAtScrape(logins: () => readonly LivingLogin[]): void;
  /** Removes the series of a connector that is gone. */
  forget(connector: string): Promise<void>;
}

function createIdentityMetrics(registers: Registry[]): IdentityMetrics {
  const labelNames = ["connector", "source"] as const;
  const attempts = new Counter({
    name: "oci_connector_identity_logins_total",
    help: "Logins that were to be made of an identity, by what came of it.",
    labelNames: [...labelNames, "outcome"],
    registers,
  });
  let logins: () => readonly LivingLogin[] = () => [];
  new Gauge({
    name: "oci_connector_identity_login_expiry_seconds",
    help: "Seconds until the login of an identity ends, if it is not renewed.",
    labelNames,
    registers,
    collect() {
      this.reset();
      for (const { connector, method, expiresAt } of logins()) {
        this.set({ connector, source: method }, (expiresAt - Date.now()) / 1000);
      }
    },
  });
  return {
    attempted: (connector, method, outcome) => attempts.inc({ connector, source: method, outcome }),
    readAtScrape(read) {
      logins = read;
    },
    forget: (connector) => removeSeries(attempts, connector),
  };
}

/** Buckets of calls and reconciliations: from at once to as long as somebody would complain about. */
const callBucketsSeconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];

/** Counts the calls of the kubelet, and volumes. */
export interface CsiMetrics {
  called(operation: "publish" | "unpublish", outcome: CallOutcome): void;
  /** Sets how many volumes there are. */
  volumes(count: number): void;
  /** Sets how a scrape finds out whether the kubelet has registered the driver; before that it has not. */
  registration(isRegistered: () => boolean): void;
}

/** How a call of the kubelet ended. */
export interface CallOutcome {
  /** The gRPC status that the kubelet got: `OK`, `UNAVAILABLE`. */
  readonly code: string;
  /** What was wrong, by the name of the gRPC status that says it best: `NOT_FOUND`; `OK` where nothing was. */
  readonly reason: string;
  readonly durationSeconds: number;
}

function createCsiMetrics(registers: Registry[]): CsiMetrics {
  const calls = new Counter({
    name: "oci_connector_csi_calls_total",
    help: "Calls of the kubelet.",
    labelNames: ["operation", "code", "reason"],
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
  let isRegistered = (): boolean => false;
  new Gauge({
    name: "oci_connector_csi_registered",
    help: "1 where the kubelet has registered the driver.",
    registers,
    collect() {
      this.set(isRegistered() ? 1 : 0);
    },
  });
  return {
    registration(find) {
      isRegistered = find;
    },
    called(operation, { code, reason, durationSeconds }) {
      calls.inc({ operation, code, reason });
      duration.observe({ operation }, durationSeconds);
    },
    volumes: (count) => volumes.set(count),
  };
}

/** Counts reconciliations, and shows the conditions of connectors. */
export interface ControllerMetrics {
  reconciled(outcome: string, durationSeconds: number): void;
  /** Sets the conditions of a connector, in place of those before. @param conditions status by type */
  conditions(connector: string, conditions: ReadonlyMap<string, string>): void;
  /** Removes the conditions of a connector that is gone. */
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

/** Counts what a node was told of images. */
export interface NodeImagesMetrics {
  /** Sets how many registries have a `hosts.toml` of somebody else, or are too many. */
  skipped(count: number): void;
}

function createNodeImagesMetrics(registers: Registry[]): NodeImagesMetrics {
  const skipped = new Gauge({
    name: "oci_connector_node_images_skipped_registries",
    help: "Registries whose images this node does not pull through the proxy, though it should.",
    registers,
  });
  return { skipped: (count) => skipped.set(count) };
}
