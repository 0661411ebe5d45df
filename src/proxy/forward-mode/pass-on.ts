import type { LookupAddress } from "node:dns";
import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import {
  Agent as HttpsAgent,
  type RequestOptions as HttpsRequestOptions,
  request as httpsRequest,
} from "node:https";
import { pipeline } from "node:stream/promises";
import type { SecureContext } from "node:tls";
import { withoutBrackets } from "../../connector/host-name.ts";
import {
  guardAgent,
  noteProxyAnswer,
  proxyRefusal,
} from "../../upstream/http-client/guarded-dial.ts";
import { connectTimeoutMs } from "../../upstream/upstream.ts";
import { wasClosed } from "../../upstream/upstream-error.ts";
import { ClientGone } from "../client-gone.ts";
import { connectionTokens, hasOtherCoding, hopByHop } from "../headers.ts";
import { badGateway, RegistryError } from "../registry-error.ts";
import { endWhenIdle, hasBody } from "../request/request-body.ts";
import type { ConnectionPool, PooledRequestOptions } from "./connection-pool.ts";
import {
  asConnectError,
  createFixedLookup,
  type Destination,
  resolveDestination,
} from "./destination.ts";
import { showsVolumeToken } from "./volume-token.ts";

/** A request, and the host that it is passed on to. */
export interface PassOnOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** The scheme, host and port of the destination: `http://example.com:8080`. */
  readonly origin: string;
  /** Path and query as the client sent them. */
  readonly path: string;
  /** The destination, as the policy allows it. */
  readonly destination: Destination;
  /** The Pod or volume that sends the request; it never gets a connection of another one. */
  readonly subject: string;
  /** The token that the client has for this proxy. No header that shows it, or one of its kind, goes along. */
  readonly token: string;
  /** The certificates that are trusted, where the origin is https; the system's where it is undefined. */
  readonly secureContext: SecureContext | undefined;
  readonly connectionPool: ConnectionPool;
  /** How long no byte of the request's body may come. */
  readonly bodyTimeoutMs: number;
}

/** How long a host may send nothing. */
const responseTimeoutMs = 600_000;

/** Limits, report and `pipeline` listen for the end of a response: eleven listeners are no leak. */
const maxListeners = 20;

/** Headers that are between a client and its proxy alone (RFC 9110, sections 7.6.1 and 11.7). */
const unforwardedHeaders: ReadonlySet<string> = new Set([
  ...hopByHop,
  "expect",
  "host",
  "proxy-authentication-info",
]);

/**
 * Passes a request on to a host as it is, and the host's response to the client. Neither a credential of a connector goes along
 * nor the client's credential for this proxy, in whichever header it stands.
 * @throws RegistryError 403 or 502 where the host can't be reached; ClientGone
 */
export async function passOn(options: PassOnOptions): Promise<void> {
  const { request, response, bodyTimeoutMs } = options;
  if (request.headers.expect !== undefined) response.writeContinue();
  let sent: ClientRequest | undefined;
  const onGone = (): void => void sent?.destroy();
  response.setMaxListeners(maxListeners).once("close", onGone);
  const stopWatching = endWhenIdle(request, bodyTimeoutMs);
  try {
    const { egress } = options.destination;
    const addresses = egress === undefined ? await resolveDestination(options.destination) : [];
    await egress?.admit(); // a connection of the pool may be there already
    const hostResponse = await requestWithRetry(request, (isPooled) => {
      if (response.destroyed) throw new Error("the client closed the connection");
      sent = sendRequest(options, addresses, isPooled);
      return sent;
    });
    const refusal = proxyRefusal(hostResponse);
    if (refusal !== undefined) {
      hostResponse.destroy();
      throw refusal;
    }
    checkCoding(hostResponse, new URL(options.origin).host);
    const { statusCode = 502, statusMessage } = hostResponse;
    response.writeHead(statusCode, statusMessage, forwardedHeaders(hostResponse));
    await pipeline(hostResponse, response);
  } catch (error) {
    if (response.destroyed) throw new ClientGone(String(error));
    if (error instanceof RegistryError) throw error;
    throw asConnectError(new URL(options.origin).host, error);
  } finally {
    stopWatching();
    response.off("close", onGone);
  }
}

/**
 * Refuses a response in a transfer coding that this proxy does not undo (RFC 9112, section 7): the header that names the
 * coding is for one hop alone, and the client would take the coded bytes for plain ones.
 * @throws RegistryError 502
 */
function checkCoding(hostResponse: IncomingMessage, host: string): void {
  if (!hasOtherCoding(hostResponse)) return;
  hostResponse.destroy();
  throw badGateway(`${host} has sent a response in a transfer coding other than chunked`);
}

/**
 * Sends a request, and sends it once more on a new connection where the server has closed a pooled one at that moment. A
 * request that must not be sent twice gets a new connection at once.
 * @throws the error of the connection
 */
async function requestWithRetry(
  request: IncomingMessage,
  send: (isPooled: boolean) => ClientRequest,
): Promise<IncomingMessage> {
  const sent = send(isRetryable(request));
  try {
    return await responseTo(sent);
  } catch (error) {
    if (!sent.reusedSocket || !wasClosed(error)) throw error;
    return await responseTo(send(false));
  }
}

/** A proxy must not repeat a request whose method is not safe (RFC 9110, section 9.2.2), and can't repeat a body. */
const isRetryable = (request: IncomingMessage): boolean =>
  (request.method === "GET" || request.method === "HEAD") && !hasBody(request);

const responseTo = (sent: ClientRequest): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    sent.once("response", resolve).on("error", reject);
  });

/** @param isPooled whether the connection may come from the pool and go back to it; otherwise it is for this request alone */
function sendRequest(
  options: PassOnOptions,
  addresses: readonly LookupAddress[],
  isPooled: boolean,
): ClientRequest {
  const { request, subject, token, secureContext, connectionPool, origin } = options;
  const { egress } = options.destination;
  const url = new URL(origin);
  const isTls = url.protocol === "https:";
  const inAbsoluteForm = isTls ? undefined : egress;
  const authorization = inAbsoluteForm?.proxy.login.current();
  const chunked =
    request.headers["transfer-encoding"] === undefined ? [] : ["transfer-encoding", "chunked"];
  const common: PooledRequestOptions = {
    hostname: withoutBrackets(url.hostname),
    port: url.port,
    method: request.method,
    path: inAbsoluteForm === undefined ? options.path : origin + options.path,
    headers: [
      "host",
      url.host,
      ...forwardedHeaders(request, (value) => !showsVolumeToken(value, token)),
      ...chunked,
      ...(authorization === undefined ? [] : ["proxy-authorization", authorization]),
    ],
    timeout: responseTimeoutMs,
    lookup: createFixedLookup(addresses),
    poolKey: { subject, addresses: addresses.map(({ address }) => address) },
    egress,
  };
  const ownAgent = <T extends Agent>(agent: T): T =>
    egress === undefined ? agent : guardAgent(agent, () => egress, connectTimeoutMs);
  const sent = isTls
    ? httpsRequest({
        ...common,
        secureContext,
        agent: isPooled ? connectionPool.https : ownAgent(new HttpsAgent()),
      } as HttpsRequestOptions)
    : httpRequest({ ...common, agent: isPooled ? connectionPool.http : ownAgent(new Agent()) });
  if (inAbsoluteForm !== undefined) noteProxyAnswer(sent, inAbsoluteForm, authorization);
  sent.once("timeout", () => sent.destroy(new Error("timeout")));
  if (isRetryable(request)) sent.end();
  // A response that comes early ends the body; its error does not matter then.
  else pipeline(request, sent, { end: true }).catch(() => undefined);
  return sent;
}

/**
 * The headers to pass on, in their order and spelling.
 * @param mayPass whether a header of that value may go along
 */
function forwardedHeaders(
  { headers, rawHeaders }: IncomingMessage,
  mayPass: (value: string) => boolean = () => true,
): string[] {
  const named = connectionTokens(headers.connection);
  const passed: string[] = [];
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const [name = "", value = ""] = rawHeaders.slice(index, index + 2);
    const key = name.toLowerCase();
    const isForHop = unforwardedHeaders.has(key) || named.has(key);
    if (!isForHop && mayPass(value)) passed.push(name, value);
  }
  return passed;
}
