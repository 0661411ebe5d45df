/**
 * The attacker, in one process of lowest priority: `attacker-process.ts ATTACK ADDRESS`.
 *
 * It first sends `{registry}`, the URL of its own registry at that address. A {@link Target} lets it begin. It counts
 * what it does, and sends the counts each second. The attack `none` just burns as much CPU time as there is.
 */
import { attacks } from "./attacks.ts";
import { startHostileRegistry } from "./hostile-registry.ts";

/** Whom the attacker attacks, and what it may use. */
export interface Target {
  /** `127.0.0.1:34567` of the proxy. */
  readonly host: string;
  /** A tenant's token. Strangers don't use it. */
  readonly token: string;
  /** The tenant's connector, which leads to the attacker's own registry. */
  readonly base: string;
  /** The API server, by plain HTTP, where there is one. */
  readonly api: string | undefined;
  /** The attacker's own registry. */
  readonly registry: string;
}

/** What the attacker has done and seen, and how often. */
export type Counts = Record<string, number>;

const [name = "none", address = "127.0.0.1"] = process.argv.slice(2);
const counts: Counts = {};
const count = (what: string): void => {
  counts[what] = (counts[what] ?? 0) + 1;
};
process.once("disconnect", () => process.exit()); // whoever has started it is gone
const registry = await startHostileRegistry(address, () => process.send?.("seen"));
process.once("message", (message) => {
  const target = message as Target;
  if (name === "none") return burn();
  attacks.find((attack) => attack.name === name)?.run(target, count);
  setInterval(() => process.send?.(counts), 1000);
});
process.send?.({ registry: registry.url });

function burn(): void {
  const begin = performance.now();
  while (performance.now() < begin + 50);
  setImmediate(burn);
}
