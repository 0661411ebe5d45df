import { type JsonMap, stringify } from "@iarna/toml";
import type { ConfigurationSettings } from "./configuration-params.ts";
import { imagePrefix } from "./proxy-address.ts";
import {
  type Mirror,
  mirrorsByImageHost,
  toolHostsOf,
  type VolumeContents,
} from "./volume-contents.ts";

/**
 * Renders `registries.conf` of containers/image (podman, buildah, skopeo) in its version 2, and the
 * certificate folders that go with it.
 */
export function* renderRegistriesConf(
  { connectors, caCertificate }: VolumeContents,
  settings: ConfigurationSettings,
): Generator<readonly [string, string]> {
  const hosts = toolHostsOf(connectors, settings.scheme);
  const registry: JsonMap[] = hosts
    .filter(({ tls }) => !tls)
    .map(({ host }) => ({ location: host, insecure: true }));
  if (settings.mirror) {
    for (const [prefix, mirrors] of mirrorsByImageHost(connectors, settings.scheme)) {
      registry.push(rewrite(prefix, mirrors));
    }
  }
  yield ["registries.conf", stringify({ registry })];
  yield* renderCertificateFolders(connectors, caCertificate);
}

/**
 * The entry for a registry's own name. The last connector takes the place of the registry itself, and earlier ones are
 * its mirrors. Mirrors are tried first, so the order of the volume holds, and no request goes to the registry directly.
 */
function rewrite(prefix: string, mirrors: readonly Mirror[]): JsonMap {
  const locations = mirrors.map(({ ref, host, tls }) => ({
    location: imagePrefix(ref, host),
    insecure: !tls,
  }));
  const earlier = locations.slice(0, -1);
  return { prefix, ...locations.at(-1), ...(earlier.length > 0 ? { mirror: earlier } : {}) };
}

/**
 * Renders `certs.d/<host>/ca.crt` for each host behind TLS. The volume's root can't serve as that folder: docker and
 * containers/image refuse a folder in which a `*.cert` has no `*.key`, and the root's `ca.cert` is part of the contract.
 */
export function* renderCertificateFolders(
  connectors: VolumeContents["connectors"],
  caCertificate: string,
): Generator<readonly [string, string]> {
  for (const { proxy } of connectors) {
    if (proxy.https !== undefined) yield [`certs.d/${proxy.https}/ca.crt`, caCertificate];
  }
}
