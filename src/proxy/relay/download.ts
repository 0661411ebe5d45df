import type { ResponseHead } from "../../upstream/http-client/http-exchange.ts";
import { isBusy } from "../../upstream/retry-after.ts";
import { UpstreamError } from "../../upstream/upstream-error.ts";
import { BodyCut } from "../client-gone.ts";
import type { Headers } from "../headers.ts";
import { type CheckedSink, checkDigest, type HashBudget, passTo } from "./body-sink.ts";
import { Patience, waitFor } from "./patience.ts";
import {
  type FinalRequest,
  type ReplayableRequest,
  type Replayed,
  type ReplayOptions,
  replay,
} from "./replay.ts";

/** A registry that is started anew takes some seconds. */
export const defaultWaits: readonly number[] = [100, 500, 2000, 4000];
/** So much more counts as progress, after which all the tries are there again. Bytes. */
const progress = 1024 * 1024;

export interface DownloadOptions extends ReplayOptions {
  /** Before each try to go on, in milliseconds. */
  readonly waits: readonly number[];
  /** By which it was asked for. */
  readonly digest: string;
  readonly hashBudget: HashBudget;
}

/** How an answer that was cut can be continued. */
interface Continuable {
  /** Bytes of all of it. */
  readonly total: number;
  /** A strong one (RFC 9110, section 8.8.3). */
  readonly etag: string | undefined;
}

/**
 * Sends a GET for something whole, named by its digest. Where the answer is cut in the middle, the rest is asked for
 * with Range and, where there is an ETag, If-Range; the client sees one answer, whose digest is checked.
 * @throws RegistryError, ClientGone, BodyCut
 */
export async function download(
  request: ReplayableRequest,
  options: DownloadOptions,
): Promise<Replayed> {
  const { response, digest, hashBudget } = options;
  const sink = checkDigest(passTo(response), digest, hashBudget);
  let known: Continuable | undefined;
  const begin = (head: ResponseHead, asked: FinalRequest): boolean => {
    known = continuable(head);
    sink.begin(head);
    return options.begin(head, asked);
  };
  try {
    return await replay(request, { ...options, sink, begin });
  } catch (error) {
    if (!(error instanceof BodyCut) || known === undefined) throw error;
    return goOn(request, { ...options, sink }, known, error);
  }
}

/** @throws BodyCut where it could not be continued */
async function goOn(
  request: ReplayableRequest,
  options: DownloadOptions & { readonly sink: CheckedSink },
  known: Continuable,
  cut: BodyCut,
): Promise<Replayed> {
  const { response, sink, waits } = options;
  for (let tries = 0; tries < waits.length && sink.bytes < known.total; tries += 1) {
    await waitFor(waits[tries] ?? 0, response);
    const from = sink.bytes;
    const ifRange: Headers = known.etag === undefined ? {} : { "if-range": known.etag };
    const rest = {
      ...request,
      headers: { ...request.headers, ...ifRange, range: `bytes=${from}-` },
    };
    const begin = (head: ResponseHead): boolean => continues(head, from, known);
    const patience = new Patience(response);
    const trying = { ...options, begin, patience, passesRedirects: false };
    const outcome = await replay(rest, trying).catch(lasting);
    if (outcome?.handling === "stream") return outcome;
    if (outcome !== undefined && !isBusy(outcome.status) && outcome.status < 500) break;
    if (sink.bytes - from >= progress) tries = -1;
  }
  throw cut;
}

/** What may be better at the next try is no outcome. */
function lasting(error: unknown): undefined {
  const mayPass = error instanceof UpstreamError && error.fault === "ConnectionFailed";
  if (!mayPass && !(error instanceof BodyCut)) throw error;
}

function continuable({ status, headers }: ResponseHead): Continuable | undefined {
  const { "content-length": length, "content-encoding": encoding, etag } = headers;
  if (status !== 200 || length === undefined || encoding !== undefined) return undefined;
  return { total: Number(length), etag: etag?.startsWith('"') ? etag : undefined };
}

/** Whether an answer is the rest of what was cut (RFC 9110, sections 14.4 and 15.3.7). */
function continues({ status, headers }: ResponseHead, from: number, known: Continuable): boolean {
  const range = `bytes ${from}-${known.total - 1}/${known.total}`;
  return (
    status === 206 &&
    headers["content-range"] === range &&
    headers["content-encoding"] === undefined &&
    (known.etag === undefined || headers.etag === undefined || headers.etag === known.etag)
  );
}
