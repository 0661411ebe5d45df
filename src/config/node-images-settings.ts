import { type ImageHosts, parseImageHosts } from "../connector/image-hosts.ts";
import type { Checked } from "../connector/problem.ts";
import { parseRegistryAddress } from "../connector/registry-address.ts";
import {
  absolutePath,
  type ClusterSettings,
  clusterSettings,
  dnsSubdomain,
  type Environment,
  pathRule,
  problemsOf,
  readSettings,
} from "./cluster-settings.ts";

/** What is to be done to a node. */
export type NodeImagesMode = (typeof modes)[number];

const modes = ["prepare", "install", "remove", "purge"] as const;

/** The settings of the role that tells a node's container runtime and kubelet of the proxy. */
export interface NodeImagesSettings extends ClusterSettings {
  readonly nodeName: string;
  readonly mode: NodeImagesMode;
  readonly imageHosts: ImageHosts;
  /** How the host reaches the proxy: `https://127.0.0.1:5443`; undefined for the address of the proxy's Service. */
  readonly proxy: string | undefined;
  /** containerd's `certs.d`. */
  readonly certsFolder: string;
  /** The kubelet's `--image-credential-provider-bin-dir`. */
  readonly providerBin: string;
  /** The folder that the kubelet's `--image-credential-provider-config` names, or in which the file lies that it names. */
  readonly providerFolder: string;
  /** The name of that file; undefined where the folder itself is named. */
  readonly providerFile: string | undefined;
  /** Where those folders are mounted, as `certs.d`, `bin` and `config.d`. */
  readonly mounts: string;
  /** The name of the host's process to restart, in which the kubelet runs; undefined where it is not restarted. */
  readonly restartKubelet: string | undefined;
}

/** Reads the settings of the node-images role. @returns the settings, or everything that is wrong with them */
export function readNodeImagesSettings(environment: Environment): Checked<NodeImagesSettings> {
  const imageHosts = parseImageHosts(environment.NODE_IMAGE_HOSTS ?? "", "NODE_IMAGE_HOSTS");
  const settings = readSettings(environment, (read) => ({
    ...clusterSettings(read),
    nodeName: read("NODE_NAME", dnsSubdomain, "the node's name"),
    mode: modeOf(read("NODE_IMAGES", (text) => modeOf(text) === text, modes.join(", "), "install")),
    proxy: read("NODE_IMAGES_PROXY", isProxy, proxyRule, "service"),
    certsFolder: read("NODE_CERTS", absolutePath, pathRule),
    providerBin: read("NODE_PROVIDER_BIN", absolutePath, pathRule),
    providerFolder: read("NODE_PROVIDER_FOLDER", absolutePath, pathRule),
    providerFile: read(
      "NODE_PROVIDER_FILE",
      /^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$/,
      "the name of a file, or nothing",
      "",
    ),
    mounts: read("NODE_MOUNTS", absolutePath, pathRule, "/node"),
    restartKubelet: read(
      "RESTART_KUBELET",
      /^[A-Za-z0-9._-]*$/,
      "the name of the process in which the kubelet runs, or nothing",
      "",
    ),
  }));
  if (!settings.ok || !imageHosts.ok) {
    return { ok: false, problems: problemsOf(settings, imageHosts) };
  }
  const { proxy, providerFile, restartKubelet } = settings.value;
  return {
    ok: true,
    value: {
      ...settings.value,
      imageHosts: imageHosts.value,
      proxy: proxy === "service" ? undefined : proxy,
      providerFile: providerFile || undefined,
      restartKubelet: restartKubelet || undefined,
    },
  };
}

const modeOf = (text: string): NodeImagesMode => modes.find((mode) => mode === text) ?? "install";

const proxyRule = "service, or the address by which hosts reach the proxy: https://127.0.0.1:5443";

function isProxy(text: string): boolean {
  if (text === "service") return true;
  const address = parseRegistryAddress(text, "");
  return address.ok && address.value.origin === text && address.value.scheme === "https";
}
