import { type JsonMap, stringify } from "@iarna/toml";
import type { ConfigurationSettings } from "./configuration-params.ts";
import { basicCredential } from "./docker-config.ts";
import { connectorPath } from "./proxy-address.ts";
import { certificateFolders } from "./registries-conf.ts";
import { hostsOf, mirrorsByImageHost, type ToolHost } from "./tool-hosts.ts";
import type { VolumeContents } from "./volume-contents.ts";

const capabilities = ["pull", "resolve", "push"];

/**
 * `certs.d/<host>/hosts.toml` of containerd and nerdctl: one for each host of the proxy and, for
 * mirrors, one for each registry's own name, which serves pushes too. The credential stands in the
 * file, since containerd has no other place for it that a mirror would be asked with.
 */
export function* containerdHosts(
  { connectors, token, caCertificate }: VolumeContents,
  settings: ConfigurationSettings,
): Generator<readonly [string, string]> {
  const header = { authorization: [`Basic ${basicCredential(token)}`] };
  const entry = ({ tls }: ToolHost): JsonMap => ({
    capabilities,
    ...(tls && settings.mountPath ? { ca: `${settings.mountPath}/ca.crt` } : {}),
    header,
  });
  yield* certificateFolders(connectors, caCertificate);
  for (const host of hostsOf(connectors, settings.scheme)) {
    yield hostsToml(host.host, { [url(host)]: entry(host) });
  }
  if (!settings.mirror) return;
  for (const [imageHost, mirrors] of mirrorsByImageHost(connectors, settings.scheme)) {
    const entries = mirrors.map((mirror) => [
      `${url(mirror)}/v2/${connectorPath(mirror.ref)}`,
      { ...entry(mirror), override_path: true },
    ]);
    yield hostsToml(imageHost, Object.fromEntries(entries));
  }
}

const url = ({ host, tls }: ToolHost): string => `${tls ? "https" : "http"}://${host}`;

const hostsToml = (host: string, entries: JsonMap): readonly [string, string] => [
  `certs.d/${host}/hosts.toml`,
  stringify({ host: entries }),
];
