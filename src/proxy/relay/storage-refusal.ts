/** What a host that the registry has redirected to refuses, as the client gets it. */
import { pickHeaders } from "../headers.ts";
import {
  badGateway,
  errorBody,
  errorCodeIn,
  type RegistryError,
  type RegistryErrorCode,
} from "../registry-error.ts";
import type { UpstreamResponse } from "./exchange.ts";
import { isForBlob, isForManifest, type UpstreamRequest } from "./upstream-request.ts";

/**
 * By these clients do something: they turn to another host (404, 410), use another method (405), leave a condition or a range
 * out (412, 416), or wait and try again (408, 429, 503).
 */
const meantForClients: ReadonlySet<number> = new Set([404, 405, 408, 410, 412, 416, 429, 503]);
/**
 * By these a storage refuses ranges, or so many of them. podman with zstd:chunked asks for fewer after a 400 and gives up
 * after anything else (containers/image#2792); other clients ask for the whole blob.
 */
const meantForRanges: ReadonlySet<number> = new Set([400, 413, 414, 416, 431, 501]);

/** What stands in the head of a refusal for its client. */
const keptHeaders: ReadonlySet<string> = new Set(["accept-ranges", "content-range", "retry-after"]);

/**
 * Makes the response of a refusal that clients act on: the status, the headers that belong to it, and a body of ours, since
 * the text of a storage may hold the signature of the URL. The code of a registry's error is kept.
 * @param received a response with a status of 400 or more
 * @throws RegistryError 502 for any other refusal, which says nothing of the client's request
 */
export function storageRefusal(
  request: UpstreamRequest,
  received: UpstreamResponse,
): UpstreamResponse {
  const { status, headers } = received;
  const isForRange = request.headers.range !== undefined && meantForRanges.has(status);
  if (!isForRange && !meantForClients.has(status)) throw failure(request, received);
  const code = errorCodeIn(received.body) ?? codeOf(status, request);
  const message = `${nameOfHost(request, received)} answered ${status}`;
  const body = Buffer.from(errorBody({ code, message }));
  return {
    ...received,
    headers: {
      ...pickHeaders(headers, (name) => keptHeaders.has(name)),
      "content-type": "application/json",
      "content-length": String(body.length),
    },
    body,
  };
}

function codeOf(status: number, request: UpstreamRequest): RegistryErrorCode {
  switch (status) {
    case 404:
    case 410:
      if (isForBlob(request)) return "BLOB_UNKNOWN";
      return isForManifest(request) ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN";
    case 408:
    case 503:
      return "UNAVAILABLE";
    case 429:
      return "TOOMANYREQUESTS";
    default:
      return "UNSUPPORTED";
  }
}

/** An error in the words that are true of it. */
function failure(request: UpstreamRequest, received: UpstreamResponse): RegistryError {
  const { status, headers, hop } = received;
  const { host } = request.url;
  if (status === 401 && headers["www-authenticate"] !== undefined) {
    return badGateway(
      `${host} redirects to ${hop.url.host}, which requires a login of its own (it answered 401); the connector's login is for ${host} alone`,
      { detail: `use a connector whose spec.address is ${hop.url.origin}` },
    );
  }
  return badGateway(`${nameOfHost(request, received)} answered ${status}`);
}

const nameOfHost = (request: UpstreamRequest, { hop }: UpstreamResponse): string =>
  isForBlob(request)
    ? `${hop.url.host}, where the registry keeps its blobs,`
    : `${request.url.host} redirects to ${hop.url.host}, which`;
