/** Has a node pull the images of its Pods through the proxy, and takes it back. */
import { join } from "node:path";
import { type ImageHosts, isImageHost } from "../connector/image-hosts.ts";
import type { RegistryAddress } from "../connector/registry-address.ts";
import { credentialProvider, pluginScript, providerName } from "./credential-provider.ts";
import { isOwn } from "./hosts-toml.ts";
import {
  type NodeFiles,
  readNodeFile,
  removeNodeFile,
  removeUnfinished,
  writeNodeFile,
} from "./node-file.ts";
import {
  configWithProvider,
  type ProviderConfigPlace,
  type ProviderConfigPlan,
  planProviderConfig,
  removeProviderConfig,
  writeProviderConfig,
} from "./provider-config.ts";
import {
  type ProxyEndpoint,
  removeRegistryHosts,
  type SkippedHost,
  writeRegistryHosts,
} from "./registry-hosts.ts";

/** The folders of a node, under the paths that its kubelet and its container runtime know them by. */
export interface NodePlaces {
  /** containerd's `certs.d`. */
  readonly certs: string;
  /** The kubelet's `--image-credential-provider-bin-dir`. */
  readonly plugins: string;
  /** The kubelet's `--image-credential-provider-config`. */
  readonly config: ProviderConfigPlace;
}

/** What a node is to be told. */
export interface WantedNodeImages {
  /** The operator's patterns. */
  readonly imageHosts: ImageHosts;
  /** The registries that get a folder: none as long as the kubelet does not know the plug-in. */
  readonly hosts: readonly string[];
  readonly proxy: ProxyEndpoint;
}

/** What a node has been told. */
export type InstalledNodeImages =
  | { readonly ok: true; readonly skipped: readonly SkippedHost[] }
  /** Why nothing was written: a registry whose images come through the proxy wants the kubelet's part as well. */
  | { readonly ok: false; readonly reason: string };

/** Registries that get a folder on a node. A container runtime looks for them by their names, and knows no patterns of ours. */
export const maxRegistryHosts = 200;

/**
 * The registries that get a folder: those that the operator has named, and for the operator's patterns those of shared
 * connectors. A connector of a tenant adds none.
 * @param shared addresses of the connectors in `kube-public`
 */
export function registryHosts(
  imageHosts: ImageHosts,
  shared: readonly RegistryAddress[],
): readonly string[] {
  const named = [...imageHosts].filter((host) => !host.startsWith("*."));
  const matching = shared
    .filter(({ scheme, imageHost }) => scheme === "https" && isImageHost(imageHosts, imageHost))
    .map(({ imageHost }) => imageHost);
  return [...new Set([...named, ...matching.toSorted()])];
}

/** The kubelet's part of what a node is told. */
export type KubeletPart =
  | { readonly ok: true; readonly config: ProviderConfigPlan & { readonly ok: true } }
  /** Why it can't be written. */
  | { readonly ok: false; readonly reason: string };

/** Plans the kubelet's part. Nothing is written. */
export async function planKubeletPart(
  files: NodeFiles,
  places: NodePlaces,
  imageHosts: ImageHosts,
): Promise<KubeletPart> {
  const plugin = pluginOf(places);
  const present = await readNodeFile(files, plugin);
  if (present !== undefined && !isOwnPlugin(present)) {
    return { ok: false, reason: `${plugin} was not written by oci-connector: remove it` };
  }
  const provider = credentialProvider([...imageHosts], places.certs);
  const config = await planProviderConfig(files, places.config, provider);
  return config.ok ? { ok: true, config } : config;
}

/** Writes the kubelet's part. The plug-in comes before the configuration that names it: without it a kubelet does not start. */
export async function writeKubeletPart(
  files: NodeFiles,
  places: NodePlaces,
  { config }: KubeletPart & { readonly ok: true },
): Promise<void> {
  await writeNodeFile(files, pluginOf(places), pluginScript, 0o755);
  await writeProviderConfig(files, config);
}

/**
 * Writes all files of a node: those that a runtime reads at each pull first, and last what says where a registry is that is
 * no longer wanted.
 */
export async function installNodeImages(
  files: NodeFiles,
  places: NodePlaces,
  { imageHosts, hosts, proxy }: WantedNodeImages,
): Promise<InstalledNodeImages> {
  const kubeletPart = await planKubeletPart(files, places, imageHosts);
  if (!kubeletPart.ok) return kubeletPart;
  const within = hosts.slice(0, maxRegistryHosts);
  const skipped = await writeRegistryHosts(files, places.certs, within, proxy);
  await writeKubeletPart(files, places, kubeletPart);
  await removeRegistryHosts(files, places.certs, new Set(within));
  const surplus = hosts.slice(maxRegistryHosts).map((host) => ({
    host,
    reason: `a node has folders of at most ${maxRegistryHosts} registries: make the patterns in NODE_IMAGE_HOSTS narrower`,
  }));
  return { ok: true, skipped: [...skipped, ...surplus] };
}

/**
 * Takes everything back in reverse: the configuration, the plug-in that it names, and what says where registries are.
 * @param mayBeMissing whether the kubelet's flags are known to name no file that was not there before the installation
 * @returns whether nothing is left. Otherwise a configuration of ours alone stays, with the plug-in, which has no login for
 *   any registry any more: a kubelet whose flags name them would not start without them
 */
export async function removeNodeImages(
  files: NodeFiles,
  places: NodePlaces,
  mayBeMissing: boolean,
): Promise<boolean> {
  const isOut = await removeProviderConfig(files, places.config, mayBeMissing);
  const isGone = isOut && (await configWithProvider(files, places.config)) === undefined;
  const plugin = pluginOf(places);
  if (isGone && isOwnPlugin((await readNodeFile(files, plugin)) ?? "")) {
    await removeNodeFile(files, plugin);
  }
  if (isGone) await removeUnfinished(files, plugin);
  await removeRegistryHosts(files, places.certs, new Set());
  return isGone;
}

const pluginOf = ({ plugins }: NodePlaces): string => join(plugins, providerName);

/** Its first line has to name the shell. */
const isOwnPlugin = (content: string): boolean => isOwn(content.slice(content.indexOf("\n") + 1));
