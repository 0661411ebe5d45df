import { type ConnectorRef, isConnectorName, isNamespace } from "./connector-ref.ts";

/**
 * The hosts under which the proxy serves a connector. In a cluster both schemes share the host of
 * the connector's Service. A listener on one machine has a port for each scheme.
 */
export interface ProxyHosts {
  /** `host[:port]` for plain HTTP, or undefined where it is not served. */
  readonly http?: string;
  /** `host[:port]` for TLS, or undefined where it is not served. */
  readonly https?: string;
  /** The scheme of the address that is shown and that tools are pointed at. */
  readonly preferred: "http" | "https";
}

/** Finds the proxy's hosts for a connector: the connector's Service in a cluster, or else a listener. */
export type ProxyHostsOf = (ref: ConnectorRef) => ProxyHosts;

/** Finds the connector's Service, which the controller creates: `c-<name>.<namespace>.svc.<cluster domain>`. */
export function serviceHosts(clusterDomain: string): ProxyHostsOf {
  return ({ namespace, name }) => {
    const host = `c-${name}.${namespace}.svc.${clusterDomain}`;
    return { http: host, https: host, preferred: "http" };
  };
}

/**
 * The connector whose Service has a host name, given with or without a port and the cluster's domain.
 * @returns undefined for any other host, also for the short form `c-<name>`, which has no namespace
 */
export function connectorOfServiceHost(
  host: string,
  clusterDomain: string,
): ConnectorRef | undefined {
  const bare = host.toLowerCase().replace(/:\d+$/, "").replace(/\.$/, "");
  const inCluster = bare.endsWith(`.svc.${clusterDomain}`)
    ? bare.slice(0, -clusterDomain.length - 1)
    : bare;
  const [, name = "", namespace = ""] = /^c-([^.]+)\.([^.]+)(?:\.svc)?$/.exec(inCluster) ?? [];
  return isConnectorName(name) && isNamespace(namespace) ? { namespace, name } : undefined;
}

/** Finds the same listener for all connectors. TLS is preferred where both schemes are served. */
export function listenerHosts(listener: Pick<ProxyHosts, "http" | "https">): ProxyHostsOf {
  const hosts: ProxyHosts = { ...listener, preferred: listener.https ? "https" : "http" };
  return () => hosts;
}

/** The path before the repository in an image name, which follows `/v2/` in a request. */
export const connectorPath = ({ namespace, name }: ConnectorRef): string =>
  `namespaces/${namespace}/connectors/${name}`;

/**
 * The host of the preferred scheme.
 * @throws Error where there is none
 */
export function preferredHost(hosts: ProxyHosts): string {
  const host = hosts[hosts.preferred];
  if (host === undefined) throw new Error(`the proxy has no ${hosts.preferred} host`);
  return host;
}

/**
 * The URL of a connector at the proxy.
 * @example
 * const ref = { namespace: "team-a", name: "harbor" };
 * proxyUrl(ref, serviceHosts("cluster.local")(ref));
 * // http://c-harbor.team-a.svc.cluster.local/namespaces/team-a/connectors/harbor
 */
export const proxyUrl = (ref: ConnectorRef, hosts: ProxyHosts): string =>
  `${hosts.preferred}://${preferredHost(hosts)}/${connectorPath(ref)}`;

/** The start of an image name or a mirror's location: the proxy's host and the connector's path. */
export const imagePrefix = (ref: ConnectorRef, host: string): string =>
  `${host}/${connectorPath(ref)}`;
