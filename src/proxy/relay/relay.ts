/** Relays admitted requests to their registry, and its responses to the clients: reads, deletions, manifests, uploads. */
import type { Upstream } from "../../upstream/upstream.ts";
import {
  isAddressRefused,
  UpstreamError,
  type UpstreamFault,
  unreachable,
} from "../../upstream/upstream-error.ts";
import type { UpstreamLogin } from "../../upstream/upstream-login.ts";
import { mayAct } from "../admission.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { goneSignal } from "../client-gone.ts";
import type { HeaderFields } from "../headers.ts";
import { badGateway, isForbidden, serviceUnavailable } from "../registry-error.ts";
import { hasBody } from "../request/request-body.ts";
import { digestOf } from "../request/request-target.ts";
import { type BlobMount, translateMount } from "./blob-mount.ts";
import { ClientSink, respondCollected, respondWithRedirect } from "./client-response.ts";
import { CredentialSearch } from "./credential-search.ts";
import { download, type HashBudget } from "./download.ts";
import { keepImmutableTag } from "./immutable-tag.ts";
import { type ReplayOptions, replay } from "./replay.ts";
import { passUpload } from "./upload.ts";
import type { SessionSeal } from "./upload-session.ts";
import { asPushScopes, createUpstreamRequest, type UpstreamRequest } from "./upstream-request.ts";

export interface RelayOptions {
  readonly login: UpstreamLogin;
  readonly seal: SessionSeal;
  /** After this time without a byte, a client that sends a body counts as gone. */
  readonly bodyTimeoutMs: number;
  /** The waits before each try to continue a blob that was cut. */
  readonly retryDelaysMs: readonly number[];
  readonly hashBudget: HashBudget;
}

/**
 * Sends a client's request to the registry, and the registry's response to the client.
 * @throws RegistryError, UpstreamError, ClientGone, BodyCut
 */
export async function relayRequest(
  admitted: AdmittedRequest,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  try {
    await relayByMethod(admitted, upstream, options);
  } catch (error) {
    if (!(error instanceof UpstreamError)) throw error;
    if (unsentFaults.has(error.fault) || isAddressRefused(error)) admitted.report.isSent = false;
    throw isShownIn(error, upstream) ? badGateway(shownInError) : error;
  }
}

/** Whether an error shows the password: it may name a host that the registry has made up, such as that of a token server. */
function isShownIn({ message, detail = "" }: UpstreamError, { secrets }: Upstream): boolean {
  const search = new CredentialSearch(secrets.credential);
  return search.isIn(message) || search.isInHost(message) || search.isIn(detail);
}

const shownInError = "the registry answered with the connector's credential in the name of a host";

/** Where the proxy itself does not go, to the registry or for the token that it wants. */
const unsentFaults: ReadonlySet<UpstreamFault> = new Set(["AuthRealmRejected"]);

function relayByMethod(
  admitted: AdmittedRequest,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  const { method, target } = admitted;
  if (method === "GET" || method === "HEAD") return relayRead(admitted, upstream, options);
  if (method === "DELETE") return relayDelete(admitted, upstream, options);
  if (target.endpoint.kind === "manifest") return relayManifest(admitted, upstream, options);
  return relayUpload(admitted, upstream, options);
}

/** GET and HEAD of anything. */
async function relayRead(
  admitted: AdmittedRequest,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  const { method, target, connector, isForward } = admitted;
  const { seal, retryDelaysMs, hashBudget } = options;
  const request = createUpstreamRequest(admitted, upstream, seal);
  const isWhole = method === "GET" && request.headers.range === undefined;
  const digest = isWhole ? digestOf(target.endpoint) : undefined;
  const isBlob = target.endpoint.kind === "blob";
  const replayOptions: ReplayOptions = {
    login: options.login,
    response: admitted.response,
    patience: admitted.patience,
    sink: new ClientSink(admitted, seal),
    passesRedirects: isForward && isBlob && connector.passesRedirects === true,
  };
  admitted.report.isSent = true;
  // A cache has its place here, in front of `download`: content with a digest is the same wherever it comes from. Rights
  // and rules were checked; whether the connector's account may read it, the registry alone knows. What is to be kept
  // passes through a sink around the client's.
  const final =
    digest === undefined
      ? await replay(request, replayOptions)
      : await download(request, { ...replayOptions, digest, retryDelaysMs, hashBudget });
  if (final.handling === "stream") return;
  if (final.redirectTo === undefined) respondCollected(admitted, final, final.hop, seal);
  else respondWithRedirect(admitted, final, final.redirectTo);
}

/** DELETE of a manifest, a tag, a blob or an upload. */
async function relayDelete(
  admitted: AdmittedRequest,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  const request = createUpstreamRequest(admitted, upstream, options.seal);
  await keepImmutableTag(admitted, request, options.login);
  try {
    await replayDelete(admitted, request, options);
  } catch (error) {
    // Few accounts may delete, and an upload that is left alone ends by itself.
    if (admitted.target.endpoint.kind !== "upload" || !isForbidden(error)) throw error;
    admitted.response.writeHead(204).end();
  }
}

/** Sends a DELETE, and once more with the right to push where there is no token for its own. */
async function replayDelete(
  admitted: AdmittedRequest,
  request: UpstreamRequest,
  options: RelayOptions,
): Promise<void> {
  try {
    await replayAndRespond(admitted, request, options);
  } catch (error) {
    if (!(error instanceof UpstreamError) || error.fault !== "AccessDenied") throw error;
    const scopes = asPushScopes(request.scopes);
    await replayAndRespond(admitted, { ...request, scopes }, options);
  }
}

/** PUT of a manifest, whose body is held. */
async function relayManifest(
  admitted: AdmittedRequest,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  const request = createUpstreamRequest(admitted, upstream, options.seal);
  await keepImmutableTag(admitted, request, options.login);
  await replayAndRespond(admitted, request, options);
}

/** POST, PATCH and PUT of a blob's upload, with or without a part of the blob. */
async function relayUpload(
  admitted: AdmittedRequest,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  const hasContent = hasBody(admitted.request);
  if (!hasContent && (await mountBlob(admitted, upstream, options))) return;
  const request = createUpstreamRequest(admitted, upstream, options.seal);
  await (hasContent ? relayContent : replayAndRespond)(admitted, request, options);
}

/**
 * Tries the cross-repository mount that a request asks for.
 * @returns false where it asks for none, or the registry made none: a plain upload has to be begun instead
 */
async function mountBlob(
  admitted: AdmittedRequest,
  upstream: Upstream,
  { login, seal }: RelayOptions,
): Promise<boolean> {
  const { target, connector, request, response, patience } = admitted;
  if (target.endpoint.kind !== "uploads") return false;
  const { host } = request.headers;
  const mount = translateMount(target.query, connector, connector.address, host);
  if (mount === undefined || !mayMount(admitted, mount)) return false;
  const mountRequest = createUpstreamRequest(admitted, upstream, seal, mount);
  const sink = new ClientSink(admitted, seal, [201, 202]);
  admitted.report.isSent = true;
  try {
    const { handling } = await replay(mountRequest, { login, response, patience, sink });
    return handling === "stream";
  } catch (error) {
    // The account may lack the right to read the other repository alone.
    if (isForbidden(error)) return false;
    throw error;
  }
}

/** Where a connector has rules, a blob is mounted from a repository that may be pulled from, and from no other. */
function mayMount({ connector, identity }: AdmittedRequest, { from }: BlobMount): boolean {
  if (connector.rules === undefined) return true;
  return from !== undefined && mayAct(connector, "pull", from, identity);
}

/** Sends a request that can be sent again, and the response to the client. */
async function replayAndRespond(
  admitted: AdmittedRequest,
  request: UpstreamRequest,
  { login, seal }: RelayOptions,
): Promise<void> {
  const { response, patience, report } = admitted;
  const sink = new ClientSink(admitted, seal);
  report.isSent = true;
  const final = await replay(request, { login, response, patience, sink });
  if (final.handling !== "stream") respondCollected(admitted, final, final.hop, seal);
}

/** Passes the content of an upload on as it comes. It can't be sent again. */
async function relayContent(
  admitted: AdmittedRequest,
  upstreamRequest: UpstreamRequest,
  { login, seal, bodyTimeoutMs }: RelayOptions,
): Promise<void> {
  const { request, response, connector, patience, report } = admitted;
  const { upstream, url, headers: kept } = upstreamRequest;
  report.isSent = true;
  const requestLogin = login.begin(upstream, upstreamRequest, goneSignal(response));
  const authorization = await patience.retry(() => requestLogin.authorization());
  const headers: HeaderFields = { ...kept };
  if (authorization !== undefined) headers.authorization = authorization;
  const length = request.headers["content-length"];
  if (length !== undefined) headers["content-length"] = length;
  if (request.headers.expect !== undefined) response.writeContinue();
  const { uploadAgents, budget } = upstream;
  const agent = url.protocol === "https:" ? uploadAgents.https : uploadAgents.http;
  const upload = { request, response, url, headers, agent, budget, bodyTimeoutMs };
  const collected = await passUpload(upload).catch((error: unknown) => {
    requestLogin.end();
    throw response.destroyed
      ? error
      : unreachable(
          `the registry ${connector.address.origin}`,
          error,
          upstream.guard.isConcealed(url),
        );
  });
  const isNewLogin = await requestLogin
    .learnForNextRequest(collected)
    .finally(() => requestLogin.end());
  if (isNewLogin) {
    const { origin } = connector.address;
    throw authorization === undefined
      ? serviceUnavailable(
          `the registry ${origin} required a login only after the content was sent`,
          {
            detail: "push again: the next attempt logs in first",
          },
        )
      : serviceUnavailable(`the registry ${origin} revoked its token in the middle of the upload`, {
          detail: "push again: the next attempt gets a new token",
        });
  }
  const search = new CredentialSearch(upstream.secrets.credential);
  search.add(authorization);
  const hop = { url, isStorage: false, digest: undefined, authorization, search };
  respondCollected(admitted, collected, hop, seal);
}
