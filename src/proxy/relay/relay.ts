import { upstreamRepository } from "../../connector/registry-address.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import { UpstreamError, unreachable } from "../../upstream/upstream-error.ts";
import type { UpstreamLogin } from "../../upstream/upstream-login.ts";
import { mayAct } from "../admission.ts";
import type { Admitted, Sealing } from "../admitted.ts";
import { isRefusal, unavailable } from "../registry-error.ts";
import { withoutParameters } from "../request/query.ts";
import { hasBody } from "../request/request-body.ts";
import { digestOf } from "../request/request-target.ts";
import type { HashBudget } from "./body-sink.ts";
import { clientHeaders, respondCollected, respondWithRedirect } from "./client-response.ts";
import { download } from "./download.ts";
import { keepImmutableTag } from "./immutable-tag.ts";
import { type BlobMount, translateMount } from "./mount.ts";
import { type Replayed, type ReplayOptions, replay } from "./replay.ts";
import { passUpload } from "./upload.ts";
import { headersForRegistry, scopesFor, upstreamUrl } from "./upstream-request.ts";

export interface RelayOptions extends Sealing {
  readonly login: UpstreamLogin;
  /** Milliseconds without a byte after which a client that sends a body counts as gone. */
  readonly bodyTimeout: number;
  /** Before each try to go on with a blob that was cut, in milliseconds. */
  readonly waits: readonly number[];
  readonly hashBudget: HashBudget;
}

/** What the registry is asked. */
interface UpstreamTarget {
  readonly url: URL;
  readonly scopes: readonly string[];
}

/** Mirrors of buildkit and containerd name the registry that they stand for. */
const mirrorParameter = "ns";

/**
 * Asks the registry what the client has asked, and answers the client.
 * @throws RegistryError, ClientGone, BodyCut
 */
export async function relayRequest(
  admitted: Admitted,
  upstream: Upstream,
  options: RelayOptions,
): Promise<void> {
  const { target, method, request, held, connector } = admitted;
  const query = withoutParameters(target.query, [mirrorParameter]);
  const isPassedOn = hasBody(request) && held === undefined;
  const begins = target.endpoint.kind === "uploads";
  if (begins && !isPassedOn) {
    if (await mount(admitted, upstream, query, options)) return;
  }
  const repository = upstreamRepository(connector.address, target.repository);
  const asked = {
    url: upstreamUrl(admitted, begins ? withoutMount(query) : query, options),
    scopes: scopesFor(method, target.endpoint, repository),
  };
  if (method === "GET" || method === "HEAD") return relay(admitted, upstream, asked, options);
  await keepImmutableTag(admitted, upstream, asked, options.login);
  if (isPassedOn) await relayUpload(admitted, upstream, asked, options);
  else if (method !== "DELETE") await relay(admitted, upstream, asked, options);
  else if (target.endpoint.kind === "upload") {
    await cancelUpload(admitted, upstream, asked, options);
  } else await relayDelete(admitted, upstream, asked, options);
}

const withoutMount = (query: string): string =>
  withoutParameters(query, ["mount", "from", "origin"]);

/** Tries a cross-repository mount; false where a plain upload has to be begun instead. */
async function mount(
  admitted: Admitted,
  upstream: Upstream,
  query: string,
  options: RelayOptions,
): Promise<boolean> {
  const { target, connector, method, request } = admitted;
  const translated = translateMount(query, connector, connector.address, request.headers.host);
  if (translated === undefined || !mayMount(admitted, translated)) return false;
  const { mountFrom } = translated;
  const repository = upstreamRepository(connector.address, target.repository);
  const asked = {
    url: upstreamUrl(admitted, translated.query, options),
    scopes: scopesFor(method, target.endpoint, repository, mountFrom),
  };
  const begin = beginWith(admitted, options);
  try {
    const beginMounted: typeof begin = (head, final) =>
      (head.status === 201 || head.status === 202) && begin(head, final);
    const { handling } = await sendAgain(admitted, upstream, asked, beginMounted, options);
    return handling === "stream";
  } catch (error) {
    // The account may lack the right to read the other repository alone.
    if (isRefusal(error)) return false;
    throw error;
  }
}

/** Where a connector has rules, a blob is mounted from a repository that may be pulled from, and from no other. */
function mayMount({ connector, identity }: Admitted, { from }: BlobMount): boolean {
  if (connector.rules === undefined) return true;
  return from !== undefined && mayAct(connector, "pull", from, identity);
}

async function relay(
  admitted: Admitted,
  upstream: Upstream,
  asked: UpstreamTarget,
  options: RelayOptions,
): Promise<void> {
  const begin = beginWith(admitted, options);
  const replayed = await sendAgain(admitted, upstream, asked, begin, options);
  if (replayed.handling === "stream") return;
  if (replayed.leadsTo === undefined) {
    respondCollected(admitted, replayed, replayed.asked, options);
  } else respondWithRedirect(admitted, replayed, replayed.leadsTo);
}

function sendAgain(
  { request, response, method, target, connector, isForward, held, patience }: Admitted,
  upstream: Upstream,
  { url, scopes }: UpstreamTarget,
  begin: ReplayOptions["begin"],
  { login, waits, hashBudget }: Pick<RelayOptions, "login" | "waits" | "hashBudget">,
): Promise<Replayed> {
  const headers = headersForRegistry(request.headers);
  const replayable = { upstream, url, method, headers, scopes, body: held };
  const digest = method === "GET" ? digestOf(target.endpoint) : undefined;
  const isBlob = target.endpoint.kind === "blob";
  const passesRedirects = isForward && isBlob && connector.passesRedirects === true;
  const sending = { login, begin, response, patience, passesRedirects };
  return digest === undefined || headers.range !== undefined
    ? replay(replayable, sending)
    : download(replayable, { ...sending, waits, hashBudget, digest });
}

const beginWith =
  (admitted: Admitted, options: Sealing): ReplayOptions["begin"] =>
  (head, asked) => {
    admitted.report.upstreamStatus = head.status;
    admitted.response.writeHead(head.status, clientHeaders(admitted, head, asked, options));
    return true;
  };

/** Quay gives no token where `delete` is among the scopes, and there whoever may push may delete. */
async function relayDelete(
  admitted: Admitted,
  upstream: Upstream,
  { url, scopes }: UpstreamTarget,
  options: RelayOptions,
): Promise<void> {
  try {
    await relay(admitted, upstream, { url, scopes }, options);
  } catch (error) {
    if (!(error instanceof UpstreamError) || error.fault !== "AccessDenied") throw error;
    const asPush = scopes.map((scope) => scope.replace(/:[^:]*$/, ":pull,push"));
    await relay(admitted, upstream, { url, scopes: asPush }, options);
  }
}

/** Few accounts may delete, and an upload that is left alone ends by itself. */
async function cancelUpload(
  admitted: Admitted,
  upstream: Upstream,
  asked: UpstreamTarget,
  options: RelayOptions,
): Promise<void> {
  try {
    await relayDelete(admitted, upstream, asked, options);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    admitted.response.writeHead(204).end();
  }
}

async function relayUpload(
  admitted: Admitted,
  upstream: Upstream,
  { url, scopes }: UpstreamTarget,
  { login, bodyTimeout, ...sealing }: RelayOptions,
): Promise<void> {
  const { request, response, connector, patience } = admitted;
  const authorization = await patience.retry(() => login.authorization(upstream, scopes));
  const headers = headersForRegistry(request.headers);
  if (authorization !== undefined) headers.authorization = authorization;
  const length = request.headers["content-length"];
  if (length !== undefined) headers["content-length"] = length;
  if (request.headers.expect !== undefined) response.writeContinue();
  const { uploadAgent: agent, budget } = upstream;
  const upload = { request, response, url, headers, agent, budget, bodyTimeout };
  const answer = await passUpload(upload).catch((error: unknown) => {
    throw response.destroyed
      ? error
      : unreachable(`the registry ${connector.address.origin}`, error);
  });
  const challenge = answer.headers["www-authenticate"];
  if (answer.status === 401 && login.refused(upstream, scopes, authorization, challenge)) {
    throw unavailable("the registry revoked its token in the middle of the upload", {
      detail: "push again: the next attempt gets a new token",
    });
  }
  const asked = { url, isStorage: false, digest: undefined, authorization };
  respondCollected(admitted, answer, asked, sealing);
}
