import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { callBucketsSeconds } from "./api-metrics.ts";

export interface ControllerMetrics {
  reconciled(outcome: string, durationSeconds: number): void;
  /** The conditions of a connector, as they are now: type → status. */
  conditions(connector: string, conditions: ReadonlyMap<string, string>): void;
  /** A connector that is gone has no conditions. */
  forget(connector: string): void;
}

export function createControllerMetrics(registers: Registry[]): ControllerMetrics {
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
