/** How connections are asked for by host and port before they are dialled, directly or by a company's proxy. */
import type { Agent, ClientRequest, ClientRequestArgs, IncomingMessage } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { LookupFunction, Socket } from "node:net";
import type { Duplex } from "node:stream";
import {
  checkProxyAnswer,
  connected,
  connectToProxy,
  type EgressRoute,
  openTunnel,
} from "./egress-tunnel.ts";
import { delayWriteErrors } from "./write-errors.ts";

/**
 * Finds the way to a host, for a connection to one of its ports. That is how the host is looked up, so that the addresses
 * that were judged are those that are dialled, or a company's proxy. Sockets look no IP address up, so one of those is
 * judged by the call itself.
 * @param hostname an IPv6 address without brackets
 * @returns the function for the option `lookup` of `net.connect`, or the way by a proxy, or an error in place of a
 *   connection
 */
export type RouteTo = (hostname: string, port: number) => LookupFunction | EgressRoute | Error;

/** Has an agent of node:http dial nothing but what `routeTo` allows. @param timeoutMs for each step by a company's proxy */
export function guardAgent<T extends Agent>(agent: T, routeTo: RouteTo, timeoutMs: number): T {
  const connect = agent.createConnection.bind(agent);
  const connectTls = agent instanceof HttpsAgent ? connect : undefined;
  agent.createConnection = (options, callback) => {
    const { hostname, port } = targetOf(options);
    const route = routeTo(hostname, port);
    if (typeof route === "function") return connect({ ...options, lookup: route }, callback);
    // What is called without a connection takes the error for that of the request (node:http, `oncreate`).
    if (route instanceof Error) callback?.(route, undefined as never);
    else createByEgress(route, { options, connectTls, timeoutMs, callback });
    return undefined;
  };
  return agent;
}

interface ByEgressOptions {
  /** What an agent's `createConnection` was called with. */
  readonly options: ClientRequestArgs;
  readonly callback: ((error: Error | null, socket: Duplex) => void) | undefined;
  /** Begins TLS as the agent does it; undefined for requests in absolute form, which the proxy passes on. */
  readonly connectTls: ((options: ClientRequestArgs) => Duplex | null | undefined) | undefined;
  /** For each step. */
  readonly timeoutMs: number;
}

/** Creates an agent's connection by a company's proxy, and hands it to the agent's callback, or the error. */
export function createByEgress(
  route: EgressRoute,
  { options, callback, connectTls, timeoutMs }: ByEgressOptions,
): void {
  const open = async (): Promise<Socket> => {
    if (connectTls === undefined) {
      await route.admit();
      await route.proxy.login.take();
      return await connectToProxy(route.proxy, { timeoutMs });
    }
    const tunnel = await openTunnel(route, targetOf(options), { timeoutMs });
    const secured = connectTls(onTopOf(tunnel, options)) as Socket;
    return await connected(secured, "secureConnect", { timeoutMs });
  };
  open().then(
    (socket) => {
      delayWriteErrors(socket);
      callback?.(null, socket);
    },
    (error) => callback?.(error, undefined as never),
  );
}

/** The options of `tls.connect` for TLS on top of a connection, which Node's types don't know for agents. */
const onTopOf = (socket: Socket, options: ClientRequestArgs): ClientRequestArgs =>
  ({ ...options, socket }) as ClientRequestArgs;

/** What an agent's connection leads to. */
function targetOf(options: object): { readonly hostname: string; readonly port: number } {
  const { host = "localhost", port } = options as { host?: string; port?: number | string };
  return { hostname: host.replace(/^\[|\]$/g, ""), port: Number(port) };
}

/** An agent as node:http calls it for each request, before anything of the request is written. */
type RequestAgent = Agent & { addRequest(request: ClientRequest, options: object): void };

/** The refusals of a company's proxy, by the responses that they came with. */
const refusals = new WeakMap<IncomingMessage, Error>();

/** The error where a response is a company's proxy's own: it refuses its login. */
export const proxyRefusal = (response: IncomingMessage): Error | undefined =>
  refusals.get(response);

/** Has the requests of an agent for plain HTTP name the whole URL where they go to a company's proxy (RFC 9112, section 3.2.2). */
export function sendInAbsoluteForm<T extends Agent>(agent: T, routeTo: RouteTo): T {
  const requestAgent = agent as T & RequestAgent;
  const addRequest = requestAgent.addRequest.bind(agent);
  requestAgent.addRequest = (request, options) => {
    const { hostname, port } = targetOf(options);
    const route = routeTo(hostname, port);
    if (typeof route !== "function" && !(route instanceof Error)) {
      const authorization = route.proxy.login.current();
      request.path = `http://${request.getHeader("host")}${request.path}`;
      if (authorization !== undefined) request.setHeader("proxy-authorization", authorization);
      noteProxyAnswer(request, route, authorization);
    }
    addRequest(request, options);
  };
  return agent;
}

/** Looks at the response to a request in absolute form; {@link proxyRefusal} has what it means. */
export function noteProxyAnswer(
  request: ClientRequest,
  { proxy }: EgressRoute,
  authorization: string | undefined,
): void {
  request.once("response", (response) => {
    const { statusCode: status = 0, headers } = response;
    try {
      checkProxyAnswer(proxy, authorization, { status, headers });
    } catch (error) {
      if (error instanceof Error) refusals.set(response, error);
    }
  });
}
