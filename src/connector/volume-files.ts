import { renderBuildkitd } from "./buildkitd.ts";
import type { ConfigurationName, ConfigurationSettings } from "./configuration-params.ts";
import { showRef } from "./connector-ref.ts";
import { renderContainerd } from "./containerd.ts";
import { renderDockerConfig } from "./docker-config.ts";
import { type Checked, type Problem, show } from "./problem.ts";
import { preferredHost, proxyUrl } from "./proxy-address.ts";
import { renderRegistriesConf } from "./registries-conf.ts";
import type { VolumeAttributes } from "./volume-attributes.ts";
import type { VolumeContents } from "./volume-contents.ts";

/** The files of a volume: their contents by relative path. */
export type VolumeFiles = ReadonlyMap<string, string>;

type RenderConfiguration = (
  contents: VolumeContents,
  settings: ConfigurationSettings,
) => Iterable<readonly [path: string, content: string]>;

const renderers: Readonly<Record<ConfigurationName, RenderConfiguration>> = {
  "docker-config": renderDockerConfig,
  buildkitd: renderBuildkitd,
  "registries-conf": renderRegistriesConf,
  containerd: renderContainerd,
};

const b64token = /^[A-Za-z0-9._~+/-]+=*$/;

/**
 * Renders every file of a volume. Host names, connector names and paths come from checked values, none of
 * which can hold a quote, a newline or a control character.
 * @param settingsIfAbsent the settings of every configuration that has no settings of its own
 * @returns the files, or a problem where a file to leave out does not exist: a misspelt one would stay in the volume
 * @throws TypeError where the token is no b64token, and so can't be sent in a header
 */
export function renderVolumeFiles(
  attributes: Pick<VolumeAttributes, "configurations" | "params" | "leaveOut">,
  contents: VolumeContents,
  settingsIfAbsent: ConfigurationSettings = {},
): Checked<VolumeFiles> {
  if (!b64token.test(contents.token)) throw new TypeError("the token is not a b64token (RFC 6750)");
  const files = new Map(builtInFiles(contents, { ...settingsIfAbsent, ...attributes.params.env }));
  for (const configuration of attributes.configurations) {
    const settings = { ...settingsIfAbsent, ...attributes.params[configuration] };
    for (const [path, content] of renderers[configuration](contents, settings)) {
      files.set(path, content);
    }
  }
  // The files of a mirror are missing while its connector is, so a name for them is no mistake then.
  const isWhole = contents.connectors.every(({ imageHost }) => imageHost !== undefined);
  const missing = isWhole ? missingFrom(files, attributes.leaveOut) : [];
  if (missing.length > 0) return { ok: false, problems: missing };
  return { ok: true, value: without(files, attributes.leaveOut) };
}

/** A file of the volume with the certificates that tools trust by default, and with the proxy's. */
const bundle = "ca-bundle.crt";

/** The variables by which various tools find the certificates to trust, and the file of the volume for each. */
export const trustedFiles: readonly (readonly [variable: string, file: string])[] = [
  ["SSL_CERT_FILE", bundle], // Go, OpenSSL, Ruby
  ["CURL_CA_BUNDLE", bundle],
  ["GIT_SSL_CAINFO", bundle],
  ["GIT_PROXY_SSL_CAINFO", bundle], // for a proxy behind TLS; the variables of Go and Python cover that, too
  ["REQUESTS_CA_BUNDLE", bundle], // Python
  ["AWS_CA_BUNDLE", bundle],
  ["NODE_EXTRA_CA_CERTS", "ca.crt"], // Node trusts these beside its own
];

function builtInFiles(
  contents: VolumeContents,
  { mountPath }: ConfigurationSettings,
): [path: string, content: string][] {
  const last = contents.connectors.at(-1) ?? contents.connectors[0];
  const proxy = forwardProxy(contents);
  const noProxy = contents.noProxy.join(",");
  const variables = [
    ["http_proxy", proxy],
    ["https_proxy", proxy],
    ["no_proxy", noProxy],
  ] as const;
  const trust = (at: string): string[] =>
    trustedFiles.map(([name, file]) => `${name}=${quoteForShell(`${at}/${file}`)}`);
  const lines = [
    ...variables.flatMap(([name, value]) => [`${name}=${value}`, `${name.toUpperCase()}=${value}`]),
    ...(mountPath === undefined ? [] : trust(mountPath)),
  ];
  return [
    [".env", lines.map((line) => `${line}\n`).join("")],
    ["http.proxy", proxy],
    ["https.proxy", proxy],
    ["context.token", contents.token],
    ["context.proxy.caCert", contents.caCertificate],
    ["ca.crt", contents.caCertificate],
    ["ca.cert", contents.caCertificate],
    [bundle, `${contents.rootCertificates}${contents.caCertificate}`],
    ["connector.status.proxyAddress", proxyUrl(last.ref, last.proxy)],
  ];
}

/** A value of a variable for a shell that reads the file: as it is where it can be, which all other readers understand. */
const quoteForShell = (text: string): string =>
  /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** The URL of the forward proxy: `http://team-a%2Fharbor,team-b%2Fghcr:<token>@<proxy host>`. */
function forwardProxy({ connectors, token }: VolumeContents): string {
  const last = connectors.at(-1) ?? connectors[0];
  const scheme = last.proxy.http === undefined ? "https" : "http";
  const host = last.proxy.http ?? preferredHost(last.proxy);
  const user = connectors.map(({ ref }) => encodeURIComponent(showRef(ref))).join(",");
  return `${scheme}://${user}:${encodeURIComponent(token)}@${host}`;
}

function missingFrom(files: VolumeFiles, names: readonly string[]): readonly Problem[] {
  const paths = [...files.keys()];
  const missing = names.filter((name) => !paths.some((path) => covers(name, path)));
  return missing.map((name) => ({
    path: "configuration.names",
    found: show(`!${name}`),
    wanted: `a file of this volume after "!": ${paths.join(", ")}`,
  }));
}

const without = (files: VolumeFiles, names: readonly string[]): VolumeFiles =>
  new Map([...files].filter(([path]) => !names.some((name) => covers(name, path))));

/** Whether a name means a file: it is the file's path, or that of a folder around it. */
const covers = (name: string, path: string): boolean =>
  path === name || path.startsWith(`${name}/`);
