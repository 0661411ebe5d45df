import { Counter, type Registry } from "prom-client";

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

export function createApiMetrics(registers: Registry[]): ApiMetrics {
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
export const callBucketsSeconds: number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];
