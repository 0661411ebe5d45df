/**
 * A fake registry on a node of a test cluster, where Pods reach it: `registry-process.ts OPTIONS`, as
 * JSON. It writes one line, what others have to know of it, and another for each request.
 */
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { addImage } from "../../support/fake-registry-content.ts";
import type { NodeRegistry, NodeRegistryOptions } from "./node-registry.ts";

const { image, ...options } = JSON.parse(process.argv[2] ?? "") as NodeRegistryOptions;
const address = "10.250.0.1";
const registry = await startFakeRegistry({ hostname: address, ...options, address });
const tell = (line: string): boolean => process.stdout.write(`${line}\n`);
addImage(registry.repository("app/base"), "1", { layerSizes: [4096], ...image });
const { host, url, ca } = registry;
tell(JSON.stringify({ host, url, ca } satisfies Omit<NodeRegistry, "requests">));
registry.on(
  "* *",
  ({ request, response, next }) => {
    response.once("close", () => tell(`${request.method} ${request.url} ${response.statusCode}`));
    return next();
  },
  "before auth",
);
