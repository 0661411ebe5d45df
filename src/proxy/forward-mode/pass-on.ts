import type { LookupAddress } from "node:dns";
import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { pipeline } from "node:stream/promises";
import type { SecureContext } from "node:tls";
import { wasClosed } from "../../upstream/upstream-error.ts";
import { ClientGone } from "../client-gone.ts";
import { connectionTokens, hopByHop } from "../headers.ts";
import { endWhenIdle, hasBody } from "../request/request-body.ts";
import { asConnectError, type Destination, judge, judgedLookup } from "./connect.ts";
import type { KeptConnections } from "./kept-connections.ts";

export interface PassOnOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** `http://example.com:8080` */
  readonly origin: string;
  /** Path and query as they came. */
  readonly path: string;
  /** Where that is, as policy has it. */
  readonly destination: Destination;
  /** Who asks; a connection that was kept for somebody else is not used. */
  readonly subject: string;
  /** What is trusted, where the origin is https and it is not just the system's roots. */
  readonly secureContext: SecureContext | undefined;
  readonly kept: KeptConnections;
  /** Milliseconds without a byte after which the client of a body counts as gone. */
  readonly bodyTimeout: number;
}

/** Milliseconds that a host may be silent. */
const answerTimeout = 600_000;

/** Limits, report and `pipeline` listen for the end of an answer: eleven are no leak. */
const mostListeners = 20;

/** What is said between a client and a proxy alone (RFC 9110, sections 7.6.1 and 11.7), and is nobody else's business. */
const betweenTwo: ReadonlySet<string> = new Set([
  ...hopByHop,
  "expect",
  "host",
  "proxy-authentication-info",
]);

/**
 * Passes a request on as it is, and its answer, to a host that no connector is for. No credential of ours goes along,
 * nor does the client's for this proxy.
 * @throws RegistryError, ClientGone
 */
export async function passOn(options: PassOnOptions): Promise<void> {
  const { request, response, bodyTimeout } = options;
  if (request.headers.expect !== undefined) response.writeContinue();
  let sent: ClientRequest | undefined;
  const onGone = (): void => void sent?.destroy();
  response.setMaxListeners(mostListeners).once("close", onGone);
  const stopWatching = endWhenIdle(request, bodyTimeout);
  try {
    const addresses = await judge(options.destination);
    const answer = await askOnceOrTwice(request, (isKept) => {
      if (response.destroyed) throw new Error("the client closed the connection");
      sent = send(options, addresses, isKept);
      return sent;
    });
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, keptOf(answer));
    await pipeline(answer, response);
  } catch (error) {
    if (response.destroyed) throw new ClientGone(String(error));
    throw asConnectError(new URL(options.origin).host, error);
  } finally {
    stopWatching();
    response.off("close", onGone);
  }
}

/**
 * A server may close a kept connection at the moment at which a request goes out on it. One that can be sent again is
 * sent once more, on a new connection. All others get a new connection at once, and are never sent again.
 * @throws the error of the connection
 */
async function askOnceOrTwice(
  request: IncomingMessage,
  ask: (isKept: boolean) => ClientRequest,
): Promise<IncomingMessage> {
  const sent = ask(canRepeat(request));
  try {
    return await answerTo(sent);
  } catch (error) {
    if (!sent.reusedSocket || !wasClosed(error)) throw error;
    return await answerTo(ask(false));
  }
}

/** RFC 9110, section 9.2.2: a proxy must not repeat what is not safe. A body is gone once it was read. */
const canRepeat = (request: IncomingMessage): boolean =>
  (request.method === "GET" || request.method === "HEAD") && !hasBody(request);

const answerTo = (sent: ClientRequest): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    sent.once("response", resolve).on("error", reject);
  });

/** @param isKept whether the connection may be one that was kept, and may be kept; otherwise it is the request's own */
function send(
  options: PassOnOptions,
  addresses: readonly LookupAddress[],
  isKept: boolean,
): ClientRequest {
  const { request, subject, secureContext, kept } = options;
  const url = new URL(options.origin);
  const chunked =
    request.headers["transfer-encoding"] === undefined ? [] : ["transfer-encoding", "chunked"];
  const message = {
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port,
    method: request.method,
    path: options.path,
    headers: ["host", url.host, ...keptOf(request), ...chunked],
    timeout: answerTimeout,
    lookup: judgedLookup(addresses),
    keptFor: { subject, addresses: addresses.map(({ address }) => address) },
  };
  const secured = { ...message, secureContext };
  const sent =
    url.protocol === "https:"
      ? httpsRequest({ ...secured, agent: isKept ? kept.https : new HttpsAgent() })
      : httpRequest({ ...message, agent: isKept ? kept.http : new Agent() });
  sent.once("timeout", () => sent.destroy(new Error("timeout")));
  if (canRepeat(request)) sent.end();
  // An early answer ends the body; what became of that is no news then.
  else pipeline(request, sent, { end: true }).catch(() => undefined);
  return sent;
}

/** Headers as they came, in their order and spelling, but for those that end here. */
function keptOf({ headers, rawHeaders }: IncomingMessage): string[] {
  const named = connectionTokens(headers.connection);
  const kept: string[] = [];
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const [name = "", value = ""] = rawHeaders.slice(index, index + 2);
    const key = name.toLowerCase();
    if (!betweenTwo.has(key) && !named.has(key)) kept.push(name, value);
  }
  return kept;
}
