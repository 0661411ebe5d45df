import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { callBucketsSeconds } from "./api-metrics.ts";

export interface CsiMetrics {
  /** @param code of gRPC: `OK`, `NOT_FOUND` */
  called(operation: "publish" | "unpublish", code: string, durationSeconds: number): void;
  /** How many volumes there are. */
  volumes(count: number): void;
}

export function createCsiMetrics(registers: Registry[]): CsiMetrics {
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
