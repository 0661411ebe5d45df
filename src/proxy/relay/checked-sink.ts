import { createHash, type Hash } from "node:crypto";
import type { AnswerHead } from "../../upstream/http-client/http-exchange.ts";
import { BodyCut } from "../client-gone.ts";
import type { BodySink } from "./body-sink.ts";
import type { HashBudget } from "./hash-budget.ts";

/** A sink for something that is known by its digest. */
export interface CheckedSink extends BodySink {
  /** Bytes that have gone into it. */
  readonly bytes: number;
  /** Its head has come, and the whole of it is to follow. */
  begin(head: AnswerHead): void;
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
      return Promise.reject(new BodyCut(`the registry has sent something else than ${digest}`));
    },
  };
}

const known: ReadonlySet<string> = new Set(["sha256", "sha512"]);
