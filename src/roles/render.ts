import { type ListenSetting, problem } from "../config/command-line.ts";
import type { RenderSettings } from "../config/render-command.ts";
import { namingTheOption } from "../config/volume-commands.ts";
import { withBrackets } from "../connector/host-name.ts";
import { clusterNoProxy } from "../connector/no-proxy.ts";
import type { Checked } from "../connector/problem.ts";
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
 * @returns the text, or what is wrong with the command line: a file that the volume does not have
 */
export function render({ files, ...settings }: RenderSettings): Checked<string> {
  const rendered = renderVolumeFiles(settings.attributes, contentsOf(settings));
  if (!rendered.ok) return { ok: false, problems: rendered.problems.map(namingTheOption) };
  const names = [...rendered.value.keys()];
  const problems = files
    .filter((file) => !rendered.value.has(file))
    .map((file) => problem("FILE", file, `a file of this volume: ${names.join(", ")}`));
  if (problems.length > 0) return { ok: false, problems };
  const wanted = (files.length > 0 ? files : names).map((file) => ({
    file,
    content: rendered.value.get(file) ?? "",
  }));
  const [only, ...others] = wanted;
  if (only !== undefined && others.length === 0) return { ok: true, value: only.content };
  const parts = wanted.map(({ file, content }) => `==> ${file} <==\n${content.trimEnd()}\n`);
  return { ok: true, value: parts.join("\n") };
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
