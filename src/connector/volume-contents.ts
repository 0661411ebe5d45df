import type { ConnectorRef } from "./connector-ref.ts";
import type { ProxyHosts } from "./proxy-address.ts";

/** A connector as the files of a volume show it. */
export interface VolumeConnector {
  readonly ref: ConnectorRef;
  readonly proxy: ProxyHosts;
  /** The registry's part of image names; undefined where the connector is gone, and so has no registry. */
  readonly imageHost: string | undefined;
}

/** What the files of one volume are made of. */
export interface VolumeContents {
  readonly connectors: readonly [VolumeConnector, ...VolumeConnector[]];
  /** What the Pod shows to the proxy. RFC 6750, section 2.1: `b64token`. */
  readonly token: string;
  /** The certificates of the proxy's own authority, PEM. */
  readonly caCertificate: string;
  /** Those that tools trust by themselves, PEM: a file that is named to them takes their place. */
  readonly rootCertificates: string;
  /** Hosts that tools ask directly, beside the proxy: the entries of `no_proxy`. */
  readonly noProxy: readonly string[];
}

/** A host of the proxy that a tool is to be told about. */
export interface ToolHost {
  readonly host: string;
  readonly tls: boolean;
}

/** A connector that stands in for a registry's own name. */
export interface Mirror extends ToolHost {
  readonly ref: ConnectorRef;
}

/**
 * The hosts of the proxy, each once. Where both schemes share a host, a tool can be told of one: the
 * wanted scheme, or the one that the proxy prefers.
 */
export function toolHostsOf(
  connectors: readonly VolumeConnector[],
  scheme: "http" | "https" | undefined,
): readonly ToolHost[] {
  const hosts = new Map<string, ToolHost>();
  for (const { proxy } of connectors) {
    const wanted = toolHost(proxy, scheme);
    for (const other of ["http", "https"] as const) {
      const host = proxy[other];
      if (host !== undefined) hosts.set(host, { host, tls: other === "https" });
    }
    hosts.set(wanted.host, wanted);
  }
  return [...hosts.values()];
}

/** For each registry's own name, the connectors that lead to it, in the order of the volume. */
export function mirrorsByImageHost(
  connectors: readonly VolumeConnector[],
  scheme: "http" | "https" | undefined,
): ReadonlyMap<string, readonly Mirror[]> {
  const mirrors = new Map<string, Mirror[]>();
  for (const { ref, proxy, imageHost } of connectors) {
    if (imageHost === undefined) continue;
    const mirror = { ref, ...toolHost(proxy, scheme) };
    mirrors.set(imageHost, [...(mirrors.get(imageHost) ?? []), mirror]);
  }
  return mirrors;
}

/** The host of the wanted scheme, where it is served, else the preferred one. */
function toolHost(proxy: ProxyHosts, scheme: "http" | "https" | undefined): ToolHost {
  const chosen = scheme !== undefined && proxy[scheme] !== undefined ? scheme : proxy.preferred;
  return { host: proxy[chosen] ?? "", tls: chosen === "https" };
}
