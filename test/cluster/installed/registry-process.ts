/**
 * A fake registry on a node of a test cluster, where Pods reach it: `registry-process.ts OPTIONS`, as
 * JSON. It writes one line, what others have to know of it, and another for each request.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob, addImage, addManifest } from "../../support/fake-registry-content.ts";
import type { NodeRegistry, NodeRegistryOptions } from "./node-registry.ts";

const { image, folder, ...options } = JSON.parse(process.argv[2] ?? "") as NodeRegistryOptions;
const address = "10.250.0.1";
const registry = await startFakeRegistry({ hostname: address, ...options, address });
const tell = (line: string): boolean => process.stdout.write(`${line}\n`);
addImage(registry.repository("app/base"), "1", { layerSizes: [4096], ...image });
if (folder !== undefined) await addFolder(folder);
const { host, url, ca } = registry;
tell(JSON.stringify({ host, url, ca } satisfies Omit<NodeRegistry, "requests" | "authorizations">));
registry.on(
  "* *",
  ({ request, response, next }) => {
    const { authorization } = request.headers;
    if (authorization !== undefined) tell(`authorization: ${authorization}`);
    response.once("close", () => tell(`${request.method} ${request.url} ${response.statusCode}`));
    return next();
  },
  "before auth",
);

/** Stores an image as if it had been pushed. */
async function addFolder(path: string): Promise<void> {
  const repository = registry.repository("app/web");
  for (const name of await readdir(path)) {
    const bytes = await readFile(join(path, name));
    if (/^[0-9a-f]{64}$/.test(name)) addBlob(repository, bytes);
    if (name !== "manifest.json") continue;
    addManifest(repository, "1", { mediaType: JSON.parse(bytes.toString()).mediaType, bytes });
  }
}
