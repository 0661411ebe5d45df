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
