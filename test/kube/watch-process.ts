/** A process that watches the Connectors of the API server at a URL. It prints its largest memory once it has listed them. */
import { createApiClient } from "../../src/kube/api-client.ts";
import { connectorsPath, createConnectorFinder } from "../../src/kube/find-connector.ts";
import { specOnly, tenantBounds } from "../../src/kube/object-bounds.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { createWatchedCache } from "../../src/kube/watched-cache.ts";

const server = new URL(process.argv[2] ?? "");
const abort = new AbortController();
const cache = createWatchedCache<KubeObject>({
  client: createApiClient({ access: { server, requestOptions: async () => ({}) } }),
  path: connectorsPath,
  bounds: tenantBounds,
  keep: specOnly,
  log: () => undefined,
  signal: abort.signal,
  random: Math.random,
});
const find = createConnectorFinder(cache);
await cache.synced;
const found = await Promise.all(
  cache.list().map(({ metadata: { name, namespace = "" } }) => find({ namespace, name })),
);
const count = (state: string): number => found.filter((one) => one.state === state).length;
const maxRssBytes = process.resourceUsage().maxRSS * 1024;
process.stdout.write(
  JSON.stringify({ found: count("found"), invalid: count("invalid"), maxRssBytes }),
);
abort.abort();
