import { type JsonMap, stringify } from "@iarna/toml";
import type { ConfigurationSettings } from "./configuration-params.ts";
import { basicCredential } from "./docker-config.ts";
import { connectorPath } from "./proxy-address.ts";
import { renderCertificateFolders } from "./registries-conf.ts";
import {
  mirrorsByImageHost,
  type ToolHost,
  toolHostsOf,
  type VolumeContents,
} from "./volume-contents.ts";

const capabilities = ["pull", "resolve", "push"];

/**
 * Renders `certs.d/<host>/hosts.toml` of containerd and nerdctl: one for each host of the proxy and, for
 * mirrors, one for each registry's own name, which serves pushes too. The credential is in the
 * file, since containerd sends a mirror no credential from any other place. The
 * certificate is beside it, so that a folder works wherever it is mounted.
 */
export function* renderContainerd(
  { connectors, token, caCertificate }: VolumeContents,
  settings: ConfigurationSettings,
): Generator<readonly [string, string]> {
  const header = { authorization: [`Basic ${basicCredential(token)}`] };
  const entry = (host: ToolHost): JsonMap => ({ capabilities, ...certificate(host), header });
  yield* renderCertificateFolders(connectors, caCertificate);
  for (const host of toolHostsOf(connectors, settings.scheme)) {
    yield hostsToml(host.host, { [url(host)]: entry(host) });
  }
  if (!settings.mirror) return;
  for (const [imageHost, mirrors] of mirrorsByImageHost(connectors, settings.scheme)) {
    const entries = mirrors.map((mirror) => [
      `${url(mirror)}/v2/${connectorPath(mirror.ref)}`,
      { ...entry(mirror), override_path: true },
    ]);
    yield hostsToml(imageHost, Object.fromEntries(entries));
    if (mirrors.some(({ tls }) => tls)) yield [`certs.d/${imageHost}/ca.crt`, caCertificate];
  }
}

const url = ({ host, tls }: ToolHost): string => `${tls ? "https" : "http"}://${host}`;

/** The certificate's path for a host behind TLS. containerd resolves a relative path from the folder of the hosts.toml. */
const certificate = ({ tls }: ToolHost): JsonMap => (tls ? { ca: "ca.crt" } : {});

/**
 * Renders one hosts.toml. Without a `server`, containerd goes on from entries that fail to the host that the image
 * names, past the proxy and without a login. The `server` given here never gets a request, since it can only push, and
 * the entries before it do that. (containerd 1 reads no file without an entry, so it can't be the only one.)
 */
function hostsToml(host: string, entries: JsonMap): readonly [string, string] {
  const [server = ""] = Object.keys(entries);
  const text = stringify({ server, capabilities: ["push"], host: entries });
  return [`certs.d/${host}/hosts.toml`, text];
}
