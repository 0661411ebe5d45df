import { type ConnectorRef, isConnectorName, isNamespace } from "./connector-ref.ts";

/**
 * Under which hosts the proxy answers for a connector. In a cluster both schemes share the host of
 * the connector's Service; a listener on one machine has a port for each scheme.
 */
export interface ProxyHosts {
  /** `host[:port]` for plain HTTP, or undefined where it is not served. */
  readonly http?: string;
  /** `host[:port]` for TLS, or undefined where it is not served. */
  readonly https?: string;
  /** The scheme of the address that is shown and that tools are pointed at. */
  readonly preferred: "http" | "https";
}

/** How the surroundings of a role name the proxy: by the connector's Service, or by a listener. */
export type ProxyHostsOf = (ref: ConnectorRef) => ProxyHosts;

/** The connector's Service, which the controller creates: `c-<name>.<namespace>.svc.<cluster domain>`. */
export function serviceHosts(clusterDomain: string): ProxyHostsOf {
  return ({ namespace, name }) => {
    const host = `c-${name}.${namespace}.svc.${clusterDomain}`;
    return { http: host, https: host, preferred: "http" };
  };
}

/**
 * The connector whose Service a host is, with or without its port and the cluster's domain; undefined
 * for any other host. The short form `c-<name>` says nothing of the namespace.
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

/** One listener for all connectors; TLS is preferred where both schemes are served. */
export function listenerHosts(listener: Pick<ProxyHosts, "http" | "https">): ProxyHostsOf {
  const hosts: ProxyHosts = { ...listener, preferred: listener.https ? "https" : "http" };
  return () => hosts;
}

/** What stands before the repository in an image name and behind `/v2/` in a request. */
export const connectorPath = ({ namespace, name }: ConnectorRef): string =>
  `namespaces/${namespace}/connectors/${name}`;

/** The host of the scheme that tools are pointed at. */
export function preferredHost(hosts: ProxyHosts): string {
  const host = hosts[hosts.preferred];
  if (host === undefined) throw new Error(`the proxy has no ${hosts.preferred} host`);
  return host;
}

/** `http://c-harbor.team-a.svc.cluster.local/namespaces/team-a/connectors/harbor` */
export const proxyUrl = (ref: ConnectorRef, hosts: ProxyHosts): string =>
  `${hosts.preferred}://${preferredHost(hosts)}/${connectorPath(ref)}`;

/** What a mirror or an image name starts with: the proxy's host and the connector's path. */
export const imagePrefix = (ref: ConnectorRef, host: string): string =>
  `${host}/${connectorPath(ref)}`;
