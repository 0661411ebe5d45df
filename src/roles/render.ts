import { clusterNoProxy } from "../config/cluster-settings.ts";
import type { ListenSetting } from "../config/command-line.ts";
import type { RenderSettings } from "../config/render-command.ts";
import { withBrackets } from "../connector/host-name.ts";
import { describeProblems, show } from "../connector/problem.ts";
import { listenerHosts, type ProxyHostsOf, serviceHosts } from "../connector/proxy-address.ts";
import type { VolumeContents } from "../connector/volume-contents.ts";
import { renderVolumeFiles } from "../connector/volume-files.ts";

const token = "TOKEN-OF-THE-VOLUME";
const caCertificate = `-----BEGIN CERTIFICATE-----
(of the proxy's authority)
-----END CERTIFICATE-----
`;

const rootCertificates = "(the system's roots)\n";

/** Stands in for the registry's host where no mirror is rendered, and so no file shows it. */
const unusedHost = "registry.example.com";

/**
 * Renders the files of a volume as text for people: a single file as it is, several with their names.
 * @throws Error with the names of all files, where a wanted one does not exist
 */
export function render({ files, ...settings }: RenderSettings): string {
  const rendered = renderVolumeFiles(settings.attributes, contentsOf(settings));
  if (!rendered.ok) throw new Error(describeProblems(rendered.problems));
  const wanted = (files.length > 0 ? files : [...rendered.value.keys()]).map((file) => {
    const content = rendered.value.get(file);
    if (content !== undefined) return { file, content };
    const names = [...rendered.value.keys()].join(", ");
    throw new Error(`FILE: found ${show(file)}, wanted a file of this volume: ${names}`);
  });
  const [only, ...others] = wanted;
  if (only !== undefined && others.length === 0) return only.content;
  return wanted.map(({ file, content }) => `==> ${file} <==\n${content.trimEnd()}\n`).join("\n");
}

function contentsOf({
  attributes,
  proxy,
  clusterDomain,
  imageHosts,
}: Omit<RenderSettings, "files">): VolumeContents {
  const isCluster = proxy.length === 0;
  const hostsOf = isCluster ? serviceHosts(clusterDomain) : hostsAt(proxy);
  const [first, ...others] = attributes.connectors;
  const connector = (ref: typeof first, index: number): VolumeContents["connectors"][0] => ({
    ref,
    proxy: hostsOf(ref),
    imageHost: imageHosts[index] ?? unusedHost,
  });
  return {
    connectors: [connector(first, 0), ...others.map((ref, index) => connector(ref, index + 1))],
    noProxy: isCluster ? clusterNoProxy(clusterDomain) : ["localhost", "127.0.0.1", "::1"],
    token,
    caCertificate,
    rootCertificates,
  };
}

const hostsAt = (proxy: readonly ListenSetting[]): ProxyHostsOf =>
  listenerHosts(
    Object.fromEntries(
      proxy.map(({ scheme, host, port }) => [scheme, `${withBrackets(host)}:${port}`]),
    ),
  );
