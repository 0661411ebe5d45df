import { createHash, type Hash } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { ResponseHead } from "../../upstream/http-client/http-exchange.ts";
import { BodyCut } from "../client-gone.ts";

/** Where the body of an answer goes while it comes. */
export interface BodySink {
  /** Takes a chunk, and says when its memory may be used again. */
  write(chunk: Buffer, release: () => void): void;
  /**
   * All of it has come. Nothing is returned where that is the end, too.
   * @throws BodyCut where it is not what was asked for
   */
  end(): Promise<void> | undefined;
}

/** Passes a body on to the client as it comes. */
export const passTo = (response: ServerResponse): BodySink => ({
  write: (chunk, release) => void response.write(chunk, release),
  end() {
    response.end();
    return undefined;
  },
});

/** A sink for something that is known by its digest. */
export interface CheckedSink extends BodySink {
  /** Bytes that have gone into it. */
  readonly bytes: number;
  /** Its head has come, and the whole of it is to follow. */
  begin(head: ResponseHead): void;
}

/**
 * Checks a body against its digest while it passes. Its last bytes are held back until it is known to be right,
 * so that a wrong one never looks whole. Where it comes too fast to be hashed, it passes without a check.
 * @param digest `sha256:…` or `sha512:…`; others are not checked
 */
export function checkDigest(sink: BodySink, digest: string, budget: HashBudget): CheckedSink {
  /** Of what has come, as long as it is hashed. */
  let hash: Hash | undefined;
  let length: number | undefined;
  let bytes = 0;
  let isWrong = false;
  const check = (): void => {
    isWrong ||= hash !== undefined && hash.digest("hex") !== digest.slice(digest.indexOf(":") + 1);
    hash = undefined;
  };
  return {
    get bytes() {
      return bytes;
    },
    begin({ status, headers }) {
      const [algorithm = ""] = digest.split(":");
      const isAsStored = status === 200 && headers["content-encoding"] === undefined;
      if (!isAsStored || !known.has(algorithm)) return;
      hash = createHash(algorithm);
      const named = Number(headers["content-length"]);
      length = Number.isNaN(named) ? undefined : named;
    },
    write(chunk, release) {
      bytes += chunk.length;
      if (hash !== undefined) hash = budget.take(chunk.length) ? hash.update(chunk) : undefined;
      if (bytes === length) check();
      if (isWrong) release();
      else sink.write(chunk, release);
    },
    end() {
      check();
      if (!isWrong) return sink.end();
      return Promise.reject(new BodyCut(`the registry sent content that does not match ${digest}`));
    },
  };
}

const known: ReadonlySet<string> = new Set(["sha256", "sha512"]);

/** What may be hashed in all: as much as a fast network brings, and a good part of an image at once. Bytes, and bytes per second. */
export const mostHashed: HashLimits = { atOnce: 32 * 1024 * 1024, perSecond: 128 * 1024 * 1024 };

export interface HashLimits {
  readonly atOnce: number;
  readonly perSecond: number;
}

/** Hashing a byte costs more than passing it on, so there has to be an end to it where bytes come faster than over most networks. */
export interface HashBudget {
  /** Takes so many bytes, or none; then it is false. */
  take(bytes: number): boolean;
}

/** @param now milliseconds of a clock that never goes back */
export function createHashBudget(now: () => number, most: HashLimits = mostHashed): HashBudget {
  let left: number = most.atOnce;
  let at = now();
  return {
    take(bytes) {
      const before = at;
      at = now();
      left = Math.min(most.atOnce, left + ((at - before) / 1000) * most.perSecond);
      if (bytes > left) return false;
      left -= bytes;
      return true;
    },
  };
}
