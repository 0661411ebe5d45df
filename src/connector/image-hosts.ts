import type { Checked } from "./problem.ts";
import { parseRegistryAddress } from "./registry-address.ts";
import { readEntries, splitList } from "./setting-list.ts";

/** The audience of the tokens with which container runtimes pull the images of Pods. It opens the proxy's mirror and nothing else. */
export const imagesAudience = "connectors-images";

/** The namespace whose connectors may be used from all others. */
export const sharedNamespace = "kube-public";

/** The annotation of a ServiceAccount that names the connector for its images: `[<namespace>/]<name>`. */
export const connectorAnnotation = "connectors.cpaas.io/connector";

/**
 * What the user of a login begins with where the ServiceAccount has that annotation, whose value stands behind it. The
 * kubelet tells its credential provider the annotation, and so nobody has to read ServiceAccounts.
 */
export const annotatedUser = "connector=";

/**
 * The registries whose images nodes pull through the proxy, by their part of an image's name: `harbor.example.com:8443`,
 * and `*.example.com` for every host one label below a domain. The kubelet's `matchImages` reads them in the same way.
 */
export type ImageHosts = ReadonlySet<string>;

/** Each of them is a folder on every node. */
const maxHosts = 200;

const wanted =
  "hosts of registries with commas, as image names begin with them, and *.<domain> for every host one label below a domain: " +
  "harbor.example.com:8443,docker.io,*.example.com";

/**
 * Parses the operator's list of registries. An empty one is valid.
 * @param path of the setting, for problems
 */
export function parseImageHosts(text: string, path: string): Checked<ImageHosts> {
  const entries = splitList(text.toLowerCase());
  const { values, problems } = readEntries(entries, readEntry, { path, wanted });
  if (entries.length > maxHosts) {
    problems.push({ path, found: `${entries.length} hosts`, wanted: `at most ${maxHosts}` });
  }
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, value: new Set(values) };
}

function readEntry(text: string): string | undefined {
  const wild = text.startsWith("*.") ? "*." : "";
  const host = text.slice(wild.length);
  const address = parseRegistryAddress(`https://${host}`, "");
  if (!address.ok || host.includes("/")) return undefined;
  const { imageHost } = address.value;
  // Of a top-level domain, or of an address, there is no host one label below that would be the operator's.
  if (wild !== "" && (!/[a-z]/.test(imageHost) || !imageHost.includes("."))) return undefined;
  return wild + imageHost;
}

/** Whether a list names a registry. @param imageHost the registry's part of an image's name */
export const isImageHost = (hosts: ImageHosts, imageHost: string): boolean =>
  hosts.has(imageHost) || hosts.has(`*${imageHost.slice(imageHost.indexOf("."))}`);
