import { type AnyJson, type JsonMap, stringify } from "@iarna/toml";
import type { ConfigurationSettings } from "./configuration-params.ts";
import { imagePrefix } from "./proxy-address.ts";
import { mirrorsByImageHost, toolHostsOf, type VolumeContents } from "./volume-contents.ts";

/**
 * Renders `buildkitd.toml`, the configuration of BuildKit's daemon. A host behind TLS gets `http = false`, since
 * BuildKit takes loopback for plain HTTP otherwise, even with a `ca`.
 */
export function* renderBuildkitd(
  { connectors }: VolumeContents,
  settings: ConfigurationSettings,
): Generator<readonly [string, string]> {
  const registry: JsonMap = {};
  for (const { host, tls } of toolHostsOf(connectors, settings.scheme)) {
    registry[host] = tls ? { http: false, ...caFile(settings.mountPath) } : { http: true };
  }
  if (settings.mirror) {
    for (const [imageHost, mirrors] of mirrorsByImageHost(connectors, settings.scheme)) {
      registry[imageHost] = { mirrors: mirrors.map(({ ref, host }) => imagePrefix(ref, host)) };
    }
  }
  const document = {
    "insecure-entitlements": ["network.host", "security.insecure"],
    registry,
  } satisfies Record<string, AnyJson>;
  yield ["buildkitd.toml", stringify(document)];
}

const caFile = (mountPath: string | undefined): JsonMap =>
  mountPath === undefined ? {} : { ca: [`${mountPath}/ca.crt`] };
