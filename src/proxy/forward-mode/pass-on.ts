import {
  type Agent,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { request as httpsRequest } from "node:https";
import { pipeline } from "node:stream/promises";
import { ClientGone } from "../client-gone.ts";
import { connectionTokens, hopByHop } from "../headers.ts";
import { endWhenIdle } from "../request/request-body.ts";
import { asConnectError } from "./connect.ts";

export interface PassOnOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** `http://example.com:8080` */
  readonly origin: string;
  /** Path and query as they came. */
  readonly path: string;
  /** Dials what may be dialled. */
  readonly agent: Agent;
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
  const url = new URL(options.origin);
  if (request.headers.expect !== undefined) response.writeContinue();
  const send = url.protocol === "https:" ? httpsRequest : httpRequest;
  const chunked =
    request.headers["transfer-encoding"] === undefined ? [] : ["transfer-encoding", "chunked"];
  const sent = send({
    agent: options.agent,
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port,
    method: request.method,
    path: options.path,
    headers: ["host", url.host, ...keptOf(request), ...chunked],
    timeout: answerTimeout,
  });
  sent.once("timeout", () => sent.destroy(new Error("timeout")));
  const onGone = (): void => void sent.destroy();
  response.setMaxListeners(mostListeners).once("close", onGone);
  const stopWatching = endWhenIdle(request, bodyTimeout);
  try {
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      sent.once("response", resolve).once("error", reject);
    });
    // An early answer ends the body; what became of that is no news then.
    pipeline(request, sent, { end: true }).catch(() => undefined);
    const answer = await answered;
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, keptOf(answer));
    await pipeline(answer, response);
  } catch (error) {
    if (response.destroyed) throw new ClientGone(String(error));
    throw asConnectError(url.host, error);
  } finally {
    stopWatching();
    response.off("close", onGone);
  }
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
