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
 * file, since containerd has no other place for it that a mirror would be asked with. The
 * certificate lies beside it, so that a folder works wherever it is mounted.
 */
export function* containerdHosts(
  { connectors, token, caCertificate }: VolumeContents,
  settings: ConfigurationSettings,
): Generator<readonly [string, string]> {
  const header = { authorization: [`Basic ${basicCredential(token)}`] };
  const direct = (host: ToolHost): Endpoint => ({
    url: url(host),
    config: { capabilities, ...certificate(host), header },
  });
  yield* certificateFolders(connectors, caCertificate);
  for (const host of hostsOf(connectors, settings.scheme)) {
    yield hostsToml(host.host, [direct(host)]);
  }
  if (!settings.mirror) return;
  for (const [imageHost, mirrors] of mirrorsByImageHost(connectors, settings.scheme)) {
    const endpoints = mirrors.map((mirror) => ({
      url: `${url(mirror)}/v2/${connectorPath(mirror.ref)}`,
      config: { ...direct(mirror).config, override_path: true },
    }));
    yield hostsToml(imageHost, endpoints);
    if (mirrors.some(({ tls }) => tls)) yield [`certs.d/${imageHost}/ca.crt`, caCertificate];
  }
}

/** An address that serves a host's images, and how. */
interface Endpoint {
  readonly url: string;
  readonly config: JsonMap;
}

const url = ({ host, tls }: ToolHost): string => `${tls ? "https" : "http"}://${host}`;

/** containerd takes a relative path as one from the folder of the hosts.toml. */
const certificate = ({ tls }: ToolHost): JsonMap => (tls ? { ca: "ca.crt" } : {});

/**
 * The last endpoint is the `server`, and earlier ones are asked before it. Without a `server`,
 * containerd goes on to the host that the image names: past the proxy, without a login.
 */
function hostsToml(host: string, endpoints: readonly Endpoint[]): readonly [string, string] {
  const last = endpoints.at(-1);
  const earlier = endpoints.slice(0, -1).map(({ url, config }) => [url, config]);
  const document = {
    ...(last === undefined ? {} : { server: last.url, ...last.config }),
    ...(earlier.length > 0 ? { host: Object.fromEntries(earlier) } : {}),
  };
  return [`certs.d/${host}/hosts.toml`, stringify(document)];
}
