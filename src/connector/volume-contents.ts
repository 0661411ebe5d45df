import type { ConnectorRef } from "./connector-ref.ts";
import type { ProxyHosts } from "./proxy-address.ts";

/** A connector as the files of a volume need it. */
export interface VolumeConnector {
  readonly ref: ConnectorRef;
  readonly proxy: ProxyHosts;
  /** The registry's part of image names, or undefined where the connector is missing. */
  readonly imageHost: string | undefined;
}

/** What the files of one volume are rendered from. */
export interface VolumeContents {
  readonly connectors: readonly [VolumeConnector, ...VolumeConnector[]];
  /** The token that tools present to the proxy: a `b64token` of RFC 6750, section 2.1. */
  readonly token: string;
  /** The certificates of the proxy's own authority, PEM. */
  readonly caCertificate: string;
  /** The certificates that tools trust by default, PEM. A file with certificates replaces them, so it has to contain them. */
  readonly rootCertificates: string;
  /** Hosts that tools connect to directly, past the proxy: the entries of `no_proxy`. */
  readonly noProxy: readonly string[];
}

/** A host of the proxy in a tool's configuration. */
export interface ToolHost {
  readonly host: string;
  /** Whether the host is behind TLS. */
  readonly tls: boolean;
}

/** A host of the proxy that serves a registry's own name through a connector. */
export interface Mirror extends ToolHost {
  readonly ref: ConnectorRef;
}

/**
 * The hosts of the proxy for a tool's configuration, each once. A configuration holds one entry for a host, so where
 * both schemes share a host, it gets the wanted scheme, or else the one that the proxy prefers.
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

/** The mirrors for each registry's own name, in the order of the volume's connectors. */
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

/** The host of the wanted scheme where that is served, or else of the preferred one. */
function toolHost(proxy: ProxyHosts, scheme: "http" | "https" | undefined): ToolHost {
  const chosen = scheme !== undefined && proxy[scheme] !== undefined ? scheme : proxy.preferred;
  return { host: proxy[chosen] ?? "", tls: chosen === "https" };
}
