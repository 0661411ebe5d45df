/** How connections are asked for by host and port before they are dialled. */
import type { Agent } from "node:http";
import type { LookupFunction } from "node:net";

/**
 * Finds how a host is looked up for a connection to one of its ports, so that the addresses that were judged are those
 * that are dialled. Sockets look no IP address up, so one of those is judged by the call itself.
 * @param hostname an IPv6 address without brackets
 * @returns the function for the option `lookup` of `net.connect`, or an error in place of a connection
 */
export type LookupFor = (hostname: string, port: number) => LookupFunction | Error;

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
