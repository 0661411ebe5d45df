/** Sends a request to the registry until it has its final response: with a new token after a 401, and along redirects. */
import type { ServerResponse } from "node:http";
import { retryDelayMs } from "../../upstream/retry-after.ts";
import { sendWithLogin } from "../../upstream/send-with-login.ts";
import { isAddressRefused, unreachable } from "../../upstream/upstream-error.ts";
import type { UpstreamLogin } from "../../upstream/upstream-login.ts";
import { goneSignal } from "../client-gone.ts";
import { contentDigest } from "../headers.ts";
import { asRegistryError, badGateway } from "../registry-error.ts";
import { CredentialSearch } from "./credential-search.ts";
import {
  exchange,
  type Hop,
  nameOf,
  type ResponseSink,
  type UpstreamResponse,
} from "./exchange.ts";
import type { Patience } from "./patience.ts";
import { storageRefusal } from "./storage-refusal.ts";
import {
  headersForStorage,
  isForList,
  isOwnOrigin,
  resolveRedirect,
  type UpstreamRequest,
} from "./upstream-request.ts";

export interface ReplayOptions {
  readonly login: UpstreamLogin;
  /** The client's response; when it is closed, everything for it ends. */
  readonly response: ServerResponse;
  readonly patience: Patience;
  /** Takes the final response, unless it is an error or a redirect. */
  readonly sink: ResponseSink;
  /** Whether the client goes to a storage host itself, where the redirect is fit to be shown to it. */
  readonly passesRedirects?: boolean;
}

/** The response that a client's request has in the end. */
export interface FinalResponse extends UpstreamResponse {
  /** Where the client is to be redirected to; undefined unless the response is a redirect that it follows itself. */
  readonly redirectTo?: URL;
}

/** As many as Go's clients follow. */
const maxRedirects = 10;

/**
 * Sends a request that can be sent again, as it has no body or one that is held, until it has its final response.
 * The registry's credential goes to the registry's own origin alone; a presigned URL is a credential
 * by itself, so the client sees it only where that is wanted.
 * @throws RegistryError, UpstreamError, ClientGone, BodyCut
 */
export async function replay(
  request: UpstreamRequest,
  options: ReplayOptions,
): Promise<FinalResponse> {
  let next: Hop = {
    url: request.url,
    isStorage: false,
    digest: undefined,
    authorization: undefined,
    search: new CredentialSearch(request.upstream.secrets.credential),
  };
  const requested: [URL, ...URL[]] = [request.url];
  for (let redirects = 0; redirects <= maxRedirects; redirects += 1) {
    const hop = next;
    const attempt = (): Promise<UpstreamResponse> =>
      hop.isStorage ? sendToStorage(request, hop, options) : sendToRegistry(request, hop, options);
    const response = await options.patience.retry(attempt, requestedDelayMs);
    if (response.handling !== "discard") return response;
    next = redirected(request, response, requested);
    requested.push(next.url);
    if (options.passesRedirects && isForClient(request, response.hop, next)) {
      return { ...response, redirectTo: next.url };
    }
  }
  throw badGateway(
    `${request.url.host} redirects too many times: ${maxRedirects} redirects were followed, and another one came`,
  );
}

const requestedDelayMs = ({ status, headers }: UpstreamResponse): number | undefined =>
  retryDelayMs(status, headers, Date.now());

/** Sends a request with the connector's login, and again where the registry's refusal leads to a better one. */
async function sendToRegistry(
  request: UpstreamRequest,
  { url, isStorage, digest, search }: Hop,
  { login, sink, response }: ReplayOptions,
): Promise<UpstreamResponse> {
  const requestLogin = login.begin(request.upstream, request, goneSignal(response));
  return sendWithLogin(requestLogin, (authorization) => {
    const headers =
      authorization === undefined ? request.headers : { ...request.headers, authorization };
    search.add(authorization);
    const hop = { url, isStorage, digest, authorization, search };
    // A body may take minutes, and other requests wait for what comes of the first login.
    const watched: ResponseSink = {
      begin(head, from) {
        requestLogin.accepted();
        return sink.begin(head, from);
      },
      write: (chunk, release) => sink.write(chunk, release),
      end: () => sink.end(),
    };
    return exchange({
      request,
      hop,
      headers,
      sink: requestLogin.isAwaited ? watched : sink,
      response,
    });
  });
}

async function sendToStorage(
  request: UpstreamRequest,
  hop: Hop,
  { sink, response }: ReplayOptions,
): Promise<UpstreamResponse> {
  const headers = headersForStorage(request.headers);
  const received = await exchange({ request, hop, headers, sink, response }).catch(asStorageError);
  return received.status < 400 ? received : storageRefusal(request, received);
}

/** Where a storage's address is refused, the registry itself has been asked already. */
function asStorageError(error: unknown): never {
  throw isAddressRefused(error) ? (asRegistryError(error) ?? error) : error;
}

/**
 * Where a redirect leads.
 * @param requested the URLs that were requested so far
 * @throws RegistryError 502 or 403 where it must not be followed
 */
function redirected(
  request: UpstreamRequest,
  response: UpstreamResponse,
  requested: readonly [URL, ...URL[]],
): Hop {
  const { upstream } = request;
  const { address } = upstream.connector;
  const { headers, hop } = response;
  const { host } = hop.url;
  const url = resolveRedirect(headers.location ?? "", requested, address);
  if (url === undefined) throw badGateway(`${host} redirects to something that is not a URL`);
  if (hop.search.isInHost(url.hostname)) {
    throw badGateway(`${host} redirects to a host whose name shows the connector's credential`);
  }
  // The https origin of an http address is the registry's own where the registry itself leads there, and nobody else.
  const isStorage =
    url.origin !== address.origin && (hop.isStorage || !isOwnOrigin(url.origin, address));
  const isSecure = address.scheme === "https" || (hop.url.protocol === "https:" && !hop.isStorage);
  if (url.protocol === "http:" && isSecure) {
    throw badGateway(`${host} redirects from https to http, to ${url.host}`);
  }
  if (!isRead(request)) checkRedirectedWrite(request, response, url, isStorage);
  const refused = upstream.guard.checkHost(url);
  if (refused !== undefined) {
    const isConcealed = upstream.guard.isConcealed(url);
    asStorageError(unreachable(nameOf(request, { url, isStorage }), refused, isConcealed));
  }
  keepQuery(request, hop.url, url);
  return {
    url,
    isStorage,
    digest: contentDigest(headers) ?? hop.digest,
    authorization: undefined,
    search: hop.search,
  };
}

/**
 * RFC 9110, section 15.4: 307 and 308 keep the method; the others turn it into GET, which no registry means.
 * @throws RegistryError 502 where a write must not follow its redirect
 */
function checkRedirectedWrite(
  { method, upstream }: UpstreamRequest,
  { status, hop }: UpstreamResponse,
  url: URL,
  isStorage: boolean,
): void {
  if (status >= 307 && !isStorage) return;
  const isUpgrade = !isStorage && url.origin !== upstream.connector.address.origin;
  throw badGateway(
    `${hop.url.host} redirects a ${method} (${status}) to ${url.host}`,
    isUpgrade ? { detail: `write ${url.origin} in the connector's spec.address` } : {},
  );
}

/**
 * Gives the redirect of a list the query of the request, where it has lost it on the way to another place (registry.k8s.io#326):
 * the query says which page is meant, and without it every page would be the first one.
 */
function keepQuery(request: UpstreamRequest, from: URL, to: URL): void {
  const isMoved = to.origin !== from.origin || to.pathname !== from.pathname;
  if (isMoved && to.search === "" && isForList(request) && isForList({ url: to })) {
    to.search = request.url.search;
  }
}

/** Whether the registry itself redirects a read to another origin, by a URL that shows nobody's login. */
function isForClient(request: UpstreamRequest, from: Hop, { url, isStorage }: Hop): boolean {
  const isPlain = url.username === "" && url.password === "";
  const isFromRegistry = isStorage && !from.isStorage;
  return isRead(request) && isFromRegistry && isPlain && !from.search.isIn(url.href);
}

const isRead = ({ method }: UpstreamRequest): boolean => method === "GET" || method === "HEAD";
