import type { ServerResponse } from "node:http";
import type { ResponseHead } from "../../upstream/http-client/http-exchange.ts";
import { busyFor } from "../../upstream/retry-after.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import { unreachable, wasClosed } from "../../upstream/upstream-error.ts";
import type { UpstreamLogin } from "../../upstream/upstream-login.ts";
import { BodyCut } from "../client-gone.ts";
import { type Headers, shows } from "../headers.ts";
import { badGateway, denied, RegistryError } from "../registry-error.ts";
import { type BodySink, passTo } from "./body-sink.ts";
import { type BodyHandling, type ExchangeResult, exchange } from "./exchange.ts";
import type { Patience } from "./patience.ts";
import { headersForStorage, resolveUpstream } from "./upstream-request.ts";

/** A request that can be sent again: it has no body, or one that is held. */
export interface ReplayableRequest {
  readonly upstream: Upstream;
  readonly url: URL;
  readonly method: string;
  readonly headers: Headers;
  readonly body?: Buffer | undefined;
  readonly scopes: readonly string[];
}

export interface ReplayOptions {
  readonly login: UpstreamLogin;
  readonly response: ServerResponse;
  readonly patience: Patience;
  /** Where the body of such a response goes; to the client as it comes, where nothing is said. */
  readonly sink?: BodySink;
  /** Whether this final response goes to the client as it comes, and if so writes its head; others are collected. */
  readonly begin: (head: ResponseHead, asked: FinalRequest) => boolean;
  /** Whether the client goes to a storage host itself, where the redirect is fit to be shown to it. */
  readonly passesRedirects?: boolean;
}

/** Where the response came from in the end. */
export interface FinalRequest {
  readonly url: URL;
  /** A host that the registry redirected to. */
  readonly isStorage: boolean;
  /** The digest that the registry named when it redirected; the storage does not know it. */
  readonly digest: string | undefined;
  /** The Authorization that went along. */
  readonly authorization: string | undefined;
}

export interface Replayed extends ExchangeResult {
  readonly asked: FinalRequest;
  /** The response is a redirect to there, which is for the client to follow. */
  readonly leadsTo?: URL;
}

const mostRedirects = 5;
/** A registry that commits an upload hashes it first, which takes minutes. */
const commitTimeout = 300_000;
const answerTimeout = 25_000;

/**
 * Sends a request until it has its final answer: with another token after a 401, and along redirects.
 * The registry's credential goes to the registry's own origin alone; a presigned URL is a credential
 * by itself, so the client sees it only where that is wanted.
 * @throws RegistryError, ClientGone, BodyCut
 */
export async function replay(
  request: ReplayableRequest,
  options: ReplayOptions,
): Promise<Replayed> {
  let asked: FinalRequest = {
    url: request.url,
    isStorage: false,
    digest: undefined,
    authorization: undefined,
  };
  for (let redirects = 0; redirects <= mostRedirects; redirects += 1) {
    const hop = asked;
    const attempt = (): Promise<Replayed> =>
      hop.isStorage ? askStorage(request, hop, options) : askRegistry(request, hop, options);
    const replayed = await options.patience.retry(attempt, askedToWait);
    if (replayed.handling !== "discard") return replayed;
    asked = nextHop(request, hop, replayed);
    if (options.passesRedirects && isForClient(request, replayed.asked, asked)) {
      return { ...replayed, leadsTo: asked.url };
    }
  }
  throw badGateway(`${request.url.host} redirects too many times`);
}

const askedToWait = ({ status, headers }: Replayed): number | undefined =>
  busyFor(status, headers, Date.now());

async function askRegistry(
  request: ReplayableRequest,
  asked: FinalRequest,
  options: ReplayOptions,
): Promise<Replayed> {
  const { upstream, scopes } = request;
  const { login } = options;
  const attempt = async (): Promise<Replayed> => {
    const authorization = await login.authorization(upstream, scopes);
    const headers =
      authorization === undefined ? request.headers : { ...request.headers, authorization };
    return send(request, { ...asked, authorization }, headers, options);
  };
  const replayed = await attempt();
  if (replayed.status !== 401) return replayed;
  const challenge = replayed.headers["www-authenticate"];
  const again = login.refused(upstream, scopes, replayed.asked.authorization, challenge);
  return again ? attempt() : replayed;
}

async function askStorage(
  request: ReplayableRequest,
  asked: FinalRequest,
  options: ReplayOptions,
): Promise<Replayed> {
  const replayed = await send(request, asked, headersForStorage(request.headers), options);
  const { status } = replayed;
  if (status < 400 || storageStatuses.has(status)) return replayed;
  throw badGateway(`${asked.url.host}, where the registry keeps its blobs, answered ${status}`);
}

/** What a storage host may say to a client: no such blob, no such range, try again later. */
const storageStatuses: ReadonlySet<number> = new Set([404, 412, 416, 429, 503]);

async function send(
  request: ReplayableRequest,
  asked: FinalRequest,
  headers: Headers,
  { response, begin, sink = passTo(response) }: ReplayOptions,
): Promise<Replayed> {
  const { method, body, upstream } = request;
  const choose = (head: ResponseHead): BodyHandling => {
    if (isRedirect(head)) return "discard";
    return head.status < 400 && begin(head, asked) ? "stream" : "collect";
  };
  const attempt = (): Promise<ExchangeResult> =>
    exchange({
      send: upstream.send,
      url: asked.url,
      method,
      headers,
      body,
      headersTimeout: method === "PUT" ? commitTimeout : answerTimeout,
      response,
      sink,
      choose,
    });
  try {
    const exchanged = await attempt().catch((error: unknown) => {
      // A server may close a kept connection just when the next request is on its way (RFC 9112, section 9.3.1).
      if (response.destroyed || error instanceof BodyCut || !wasClosed(error)) throw error;
      return attempt();
    });
    return { ...exchanged, asked };
  } catch (error) {
    if (response.destroyed || error instanceof RegistryError || error instanceof BodyCut)
      throw error;
    const who = asked.isStorage ? "the registry's storage" : "the registry";
    throw unreachable(`${who} ${asked.url.origin}`, error);
  }
}

const isRedirect = ({ status, headers }: ResponseHead): boolean =>
  [301, 302, 303, 307, 308].includes(status) && headers.location !== undefined;

const isRead = ({ method }: ReplayableRequest): boolean => method === "GET" || method === "HEAD";

/** Whether the registry itself redirects a read to another origin, by a URL that shows nobody's login. */
function isForClient(
  request: ReplayableRequest,
  asked: FinalRequest,
  { url, isStorage }: FinalRequest,
): boolean {
  const isPlain = url.username === "" && url.password === "";
  const isFromRegistry = isStorage && !asked.isStorage;
  return isRead(request) && isFromRegistry && isPlain && !shows(url.href, asked.authorization);
}

function nextHop(
  request: ReplayableRequest,
  { url, digest }: FinalRequest,
  { status, headers }: ResponseHead,
): FinalRequest {
  const { upstream, method } = request;
  const { address } = upstream.connector;
  const next = resolveUpstream(headers.location ?? "", url, address);
  if (next === undefined) throw badGateway(`${url.host} redirects to something that is not a URL`);
  if (next.protocol === "http:" && address.scheme === "https") {
    throw badGateway(`${url.host} redirects from https to http, to ${next.host}`);
  }
  // RFC 9110, section 15.4: 307 and 308 keep the method; the others turn it into GET, which no registry means.
  if (!isRead(request) && (status < 307 || next.origin !== address.origin)) {
    throw badGateway(`${url.host} redirects a ${method} (${status}) to ${next.host}`);
  }
  const host = upstream.guard.checkHost(next.hostname.replace(/^\[|\]$/g, ""));
  if (!host.ok) throw denied(host.reason);
  const named = headers["docker-content-digest"];
  return {
    url: next,
    isStorage: next.origin !== address.origin,
    digest: typeof named === "string" ? named : digest,
    authorization: undefined,
  };
}
