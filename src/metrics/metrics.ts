import { collectDefaultMetrics, Registry } from "prom-client";
import { type ApiMetrics, createApiMetrics } from "./api-metrics.ts";
import { type ControllerMetrics, createControllerMetrics } from "./controller-metrics.ts";
import { type CsiMetrics, createCsiMetrics } from "./csi-metrics.ts";
import { createProxyMetrics, type ProxyMetrics } from "./proxy-metrics.ts";

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
