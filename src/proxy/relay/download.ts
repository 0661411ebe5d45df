/** Content that is requested whole by its digest: it is checked while it passes, and continued where it was cut. */
import { createHash, type Hash } from "node:crypto";
import type { ResponseHead } from "../../upstream/http-client/http-exchange.ts";
import { isBusy } from "../../upstream/retry-after.ts";
import { UpstreamError } from "../../upstream/upstream-error.ts";
import { BodyCut, WrongContent } from "../client-gone.ts";
import type { Hop, ResponseSink } from "./exchange.ts";
import { Patience, waitFor } from "./patience.ts";
import { type FinalResponse, type ReplayOptions, replay } from "./replay.ts";
import type { UpstreamRequest } from "./upstream-request.ts";

/** A registry that is started anew takes some seconds. */
export const defaultRetryDelaysMs: readonly number[] = [100, 500, 2000, 4000];
/** So much more counts as progress, after which all the tries are there again. */
const progressBytes = 1024 * 1024;
/**
 * Content of at most so many bytes is held until it is checked: the manifests and configurations that nearly all images
 * have. What is longer goes out as it comes, since clients count the time until the first byte.
 */
const maxHeldBytes = 64 * 1024;

export interface DownloadOptions extends ReplayOptions {
  /** The waits before each try to continue. */
  readonly retryDelaysMs: readonly number[];
  /** The digest by which the content is requested. */
  readonly digest: string;
  readonly hashBudget: HashBudget;
}

/**
 * Sends a GET for something whole, named by its digest. Where the response is cut in the middle, the rest is requested
 * with Range and, where there is an ETag, If-Range; the client sees one response, whose digest is checked.
 * @throws RegistryError, UpstreamError, ClientGone; BodyCut where it could not be continued; WrongContent where it has
 *   another digest
 */
export async function download(
  request: UpstreamRequest,
  options: DownloadOptions,
): Promise<FinalResponse> {
  const sink = new CheckedSink(options.sink, options.digest, options.hashBudget);
  try {
    return await replay(request, { ...options, sink });
  } catch (error) {
    if (!(error instanceof BodyCut) || sink.resumable === undefined) throw error;
    return resume(request, options, sink, sink.resumable, error);
  }
}

/** @throws BodyCut where it could not be continued */
async function resume(
  request: UpstreamRequest,
  options: DownloadOptions,
  sink: CheckedSink,
  resumable: ResumableBody,
  cut: BodyCut,
): Promise<FinalResponse> {
  const { response, retryDelaysMs } = options;
  const { totalBytes, etag } = resumable;
  for (let tries = 0; tries < retryDelaysMs.length && sink.bytes < totalBytes; tries += 1) {
    await waitFor(retryDelaysMs[tries] ?? 0, response);
    const from = sink.bytes;
    const range = `bytes=${from}-`;
    const rest: UpstreamRequest = {
      ...request,
      headers: {
        ...request.headers,
        ...(etag === undefined ? {} : { "if-range": etag }),
        range,
      },
    };
    const continued: ReplayOptions = {
      ...options,
      patience: new Patience(response),
      passesRedirects: false,
      sink: {
        begin: (head) => isRest(head, from, resumable),
        write: (chunk, release) => sink.write(chunk, release),
        end: () => sink.end(),
      },
    };
    const received = await replay(rest, continued).catch(undefinedIfTemporary);
    if (received?.handling === "stream") return received;
    if (received !== undefined && !isBusy(received.status) && received.status < 500) break;
    if (sink.bytes - from >= progressBytes) tries = -1;
  }
  throw cut;
}

/** The outcome of an attempt whose error may be gone at the next one. */
function undefinedIfTemporary(error: unknown): undefined {
  const isTemporary = error instanceof UpstreamError && error.fault === "ConnectionFailed";
  if (error instanceof WrongContent || !(isTemporary || error instanceof BodyCut)) throw error;
}

/** A body that can be continued where it was cut. */
interface ResumableBody {
  readonly totalBytes: number;
  /** A strong one (RFC 9110, section 8.8.3). */
  readonly etag: string | undefined;
}

function resumableBody({ status, headers }: ResponseHead): ResumableBody | undefined {
  const { "content-length": length, "content-encoding": encoding, etag } = headers;
  if (status !== 200 || length === undefined || encoding !== undefined) return undefined;
  return { totalBytes: Number(length), etag: etag?.startsWith('"') ? etag : undefined };
}

/** Whether a response is the rest of what was cut (RFC 9110, sections 14.4 and 15.3.7). */
function isRest(
  { status, headers }: ResponseHead,
  from: number,
  { totalBytes, etag }: ResumableBody,
): boolean {
  const range = `bytes ${from}-${totalBytes - 1}/${totalBytes}`;
  return (
    status === 206 &&
    headers["content-range"] === range &&
    headers["content-encoding"] === undefined &&
    (etag === undefined || headers.etag === undefined || headers.etag === etag)
  );
}

const hashAlgorithms: ReadonlySet<string> = new Set(["sha256", "sha512"]);

/**
 * Checks a body against its digest while it passes on to another sink. A short one is held back until it is known to be
 * right, so that nothing of a wrong one goes out; of a longer one the last bytes are, so that a wrong one never looks whole.
 * Where it comes too fast to be hashed, it passes without a check.
 */
class CheckedSink implements ResponseSink {
  readonly #sink: ResponseSink;
  /** `sha256:…` or `sha512:…`; others are not checked. */
  readonly #digest: string;
  readonly #budget: HashBudget;
  /** Of what has come, as long as it is hashed. */
  #hash: Hash | undefined;
  #length: number | undefined;
  #isWrong = false;
  /** What is held back, as long as all of the body is. */
  #held: Buffer[] | undefined;
  /** Bytes of the body that have come. */
  bytes = 0;
  /** How the response can be continued, if it can. */
  resumable: ResumableBody | undefined;

  constructor(sink: ResponseSink, digest: string, budget: HashBudget) {
    this.#sink = sink;
    this.#digest = digest;
    this.#budget = budget;
  }

  begin(head: ResponseHead, hop: Hop): boolean {
    this.resumable = resumableBody(head);
    this.#beginHash(head);
    return this.#sink.begin(head, hop);
  }

  #beginHash({ status, headers }: ResponseHead): void {
    const algorithm = this.#digest.slice(0, this.#digest.indexOf(":"));
    const isAsStored = status === 200 && headers["content-encoding"] === undefined;
    if (!isAsStored || !hashAlgorithms.has(algorithm)) return;
    this.#hash = createHash(algorithm);
    const length = Number(headers["content-length"]);
    this.#length = Number.isNaN(length) ? undefined : length;
    this.#held = this.#length === undefined || this.#length <= maxHeldBytes ? [] : undefined;
  }

  write(chunk: Buffer, release: () => void): void {
    this.bytes += chunk.length;
    if (this.#hash !== undefined) {
      this.#hash = this.#budget.take(chunk.length) ? this.#hash.update(chunk) : undefined;
    }
    if (this.bytes === this.#length) this.#check();
    if (this.#isWrong) {
      release();
      return;
    }
    if (this.#held !== undefined && this.#hash !== undefined && this.bytes <= maxHeldBytes) {
      this.#held.push(Buffer.from(chunk));
      release();
      return;
    }
    this.#passHeld();
    this.#sink.write(chunk, release);
  }

  end(): Promise<void> | undefined {
    this.#check();
    if (this.#isWrong) {
      const message = `the registry sent content that does not match ${this.#digest}`;
      return Promise.reject(new WrongContent(message));
    }
    this.#passHeld();
    return this.#sink.end();
  }

  #passHeld(): void {
    for (const chunk of this.#held ?? []) this.#sink.write(chunk, () => undefined);
    this.#held = undefined;
  }

  #check(): void {
    const expected = this.#digest.slice(this.#digest.indexOf(":") + 1);
    this.#isWrong ||= this.#hash !== undefined && this.#hash.digest("hex") !== expected;
    this.#hash = undefined;
  }
}

/** How much may be hashed. */
export interface HashLimits {
  readonly burstBytes: number;
  readonly bytesPerSecond: number;
}

/** As much as a fast network brings, and a good part of an image at once. */
const defaultHashLimits: HashLimits = {
  burstBytes: 32 * 1024 * 1024,
  bytesPerSecond: 128 * 1024 * 1024,
};

/** Hashing a byte costs more than passing it on, so there has to be an end to it where bytes come faster than over most networks. */
export interface HashBudget {
  /** Takes so many bytes, or none; then it is false. */
  take(bytes: number): boolean;
}

/**
 * A budget that all downloads share: a token bucket.
 * @param now milliseconds of a clock that never goes back
 */
export function createHashBudget(
  now: () => number,
  limits: HashLimits = defaultHashLimits,
): HashBudget {
  const { burstBytes, bytesPerSecond } = limits;
  let left = burstBytes;
  let at = now();
  return {
    take(bytes) {
      const before = at;
      at = now();
      left = Math.min(burstBytes, left + ((at - before) / 1000) * bytesPerSecond);
      if (bytes > left) return false;
      left -= bytes;
      return true;
    },
  };
}
