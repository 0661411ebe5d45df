/** Connections of node:http and undici, each of which is asked for by host and port before it is dialled. */
import type { Agent } from "node:http";
import type { LookupFunction } from "node:net";
import { LRUCache } from "lru-cache";
import { buildConnector } from "undici";

/**
 * Finds how a host is looked up for a connection to one of its ports, so that the addresses that were judged are those
 * that are dialled. Sockets look no IP address up, so one of those is judged by the call itself.
 * @param hostname an IPv6 address without brackets
 * @returns the function for the option `lookup` of `net.connect`, or an error in place of a connection
 */
export type LookupFor = (hostname: string, port: number) => LookupFunction | Error;

/** Ports of one registry and its storage. Each connector keeps TLS sessions of its own. */
const maxPorts = 16;

/** Makes a function for undici's `connect` that dials nothing but what `lookupFor` allows. The connections speak HTTP/1.1. */
export function createGuardedConnector(
  options: buildConnector.BuildOptions,
  lookupFor: LookupFor,
): buildConnector.connector {
  const connectors = new LRUCache<number, buildConnector.connector>({ max: maxPorts });
  const connectorFor = (port: number): buildConnector.connector => {
    const known = connectors.get(port);
    if (known !== undefined) return known;
    const connector = buildConnector({
      ...options,
      allowH2: false,
      lookup: (hostname, lookupOptions, callback) => {
        const lookup = lookupFor(hostname, port);
        if (lookup instanceof Error) callback(lookup, "", 0);
        else lookup(hostname, lookupOptions, callback);
      },
    });
    connectors.set(port, connector);
    return connector;
  };
  return (to, callback) => {
    const port = portOf(to);
    const lookup = lookupFor(to.hostname.replace(/^\[|\]$/g, ""), port);
    if (lookup instanceof Error) callback(lookup, null);
    else connectorFor(port)(to, callback);
  };
}

const portOf = ({ protocol, port }: { readonly protocol: string; readonly port: string }): number =>
  Number(port) || (protocol === "https:" ? 443 : 80);

/** Has an agent of node:http dial nothing but what `lookupFor` allows. */
export function guardAgent<T extends Agent>(agent: T, lookupFor: LookupFor): T {
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, callback) => {
    const { host = "localhost", port } = options as { host?: string; port?: number | string };
    const lookup = lookupFor(host.replace(/^\[|\]$/g, ""), Number(port));
    if (!(lookup instanceof Error)) return connect({ ...options, lookup }, callback);
    // What is called without a connection takes the error for that of the request (node:http, `oncreate`).
    callback?.(lookup, undefined as never);
    return undefined;
  };
  return agent;
}
