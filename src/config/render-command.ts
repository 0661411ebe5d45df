import type { Checked } from "../connector/problem.ts";
import { parseRegistryAddress } from "../connector/registry-address.ts";
import type { VolumeAttributes } from "../connector/volume-attributes.ts";
import { dnsSubdomain, domainRule } from "./cluster-settings.ts";
import {
  type CommandLine,
  type ListenSetting,
  problem,
  readCommandLine,
  readListenSettings,
} from "./command-line.ts";
import { readVolumeOptions, volumeOptions } from "./volume-commands.ts";

/** The settings of `render`: which files to print, and of which volume. */
export interface RenderSettings {
  readonly attributes: VolumeAttributes;
  /** The proxy's addresses; empty for the proxy of a cluster. */
  readonly proxy: readonly ListenSetting[];
  /** The DNS domain of the cluster: `cluster.local`. */
  readonly clusterDomain: string;
  /** The host in the image names of each connector, in the order of the connectors. */
  readonly imageHosts: readonly string[];
  /** The names of the files to print; empty for all. */
  readonly files: readonly string[];
}

/** Reads the options of `render`. */
export function readRender(
  args: readonly string[],
): Checked<{ readonly name: "render"; readonly settings: RenderSettings }> {
  const line = readCommandLine(args, {
    ...volumeOptions,
    proxy: "cluster",
    "cluster-domain": "cluster.local",
    "image-host": "",
  });
  const { text, texts, problems, positionals: files } = line;
  const attributes = readVolumeOptions(line)?.checked;
  const isCluster = text("proxy") === "cluster";
  const proxy = isCluster ? [] : readListenSettings("--proxy", texts("proxy"), problems);
  const clusterDomain = text("cluster-domain");
  if (!dnsSubdomain.test(clusterDomain)) {
    problems.push(problem("--cluster-domain", clusterDomain, domainRule));
  }
  const imageHosts = imageHostsOf(line);
  if (attributes !== undefined) checkImageHosts(attributes, line);
  if (attributes === undefined || problems.length > 0) return { ok: false, problems };
  const settings = { attributes, proxy, clusterDomain, imageHosts, files };
  return { ok: true, value: { name: "render", settings } };
}

const imageHostTexts = ({ texts }: CommandLine<"image-host">): readonly string[] =>
  texts("image-host").filter((host) => host !== "");

function imageHostsOf(line: CommandLine<"image-host">): readonly string[] {
  return imageHostTexts(line).flatMap((host) => {
    const address = parseRegistryAddress(`https://${host}`, "--image-host");
    if (address.ok && address.value.basePath === "") return address.value.imageHost;
    line.problems.push(problem("--image-host", host, "a host with an optional port"));
    return [];
  });
}

/**
 * Checks that there is a host for each mirror: without the name that it stands in for, a mirror would be left out in
 * silence.
 */
function checkImageHosts(
  { connectors, params }: VolumeAttributes,
  line: CommandLine<"image-host">,
): void {
  const { length } = imageHostTexts(line);
  const isMirror = Object.values(params).some(({ mirror }) => mirror === true);
  if (length > connectors.length || (isMirror && length < connectors.length)) {
    const wanted = `${connectors.length}: one for each connector, in their order`;
    line.problems.push(
      problem("--image-host", length, isMirror ? `${wanted}, for the mirrors` : wanted),
    );
  }
}
