/** What is known of how registries want to be logged in to: of each one, and of repositories of theirs that differ. */
import { LRUCache } from "lru-cache";
import { SharedCall } from "../concurrency.ts";
import { apiUrl, fetchHead } from "./fetch-head.ts";
import { chooseScheme, isSameScheme, type LoginScheme, resourceOf } from "./login-scheme.ts";
import { retryDelayMs } from "./retry-after.ts";
import { SharedCache } from "./shared-cache.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError, type UpstreamFault } from "./upstream-error.ts";

/** What a request is, as far as its login depends on that. */
export interface LoginRequest {
  readonly method: string;
  /** What a token has to allow, as the distribution token protocol has it: `repository:app:pull`. */
  readonly scopes: readonly string[];
}

/** The part of that by which schemes are remembered. */
export interface LoginUse {
  readonly method: string;
  /** The first scope of the request, which tells the repository: `repository:app:pull`. */
  readonly scope: string;
}

/** How to log in for a request. */
export interface KnownScheme {
  readonly scheme: LoginScheme;
  /**
   * Where it is known from:
   * - asked: the registry was asked for this request
   * - registry: the registry was asked before
   * - repository: a challenge for this repository, or for such a request to it, said so
   * - tried: the login was sent to this repository without a challenge
   */
  readonly source: "asked" | "registry" | "repository" | "tried";
}

interface KnownRegistry {
  /** Pending while the registry is asked. */
  readonly learning: SharedCall<LoginScheme>;
  /** The scheme, once it is known. */
  scheme?: LoginScheme;
  /** The last time that the registry was asked again, and what it said; undefined where it could not be told. */
  askedAgain?: { readonly at: number; readonly scheme: SharedCall<LoginScheme | undefined> };
  /** Since when a token server has not answered a request for a token, in milliseconds of the clock. */
  unansweredSince?: number | undefined;
}

interface KnownRepository {
  readonly scheme: LoginScheme;
  readonly source: "repository" | "tried";
  /** In milliseconds of the clock. */
  readonly expiresAt: number;
}

/** Faults of a registry that says nothing. */
const unreachedFaults: ReadonlySet<UpstreamFault> = new Set<UpstreamFault>([
  "ConnectionFailed",
  "CertificateInvalid",
]);
/** A registry that is started when it is asked takes its time. */
const pingTimeoutMs = 60_000;
const maxRegistries = 2_000;
/** How often a registry is asked again how it wants to be logged in to. */
const askAgainAfterMs = 10_000;
/** A token server that takes longer may be one that is not in use any more. */
const tokenAnswerMs = 5_000;
/** How long a login that helped without a challenge is sent to its repository. */
const triedForMs = 600_000;
/** How long none is sent without a challenge where it did not help: the account may get the right at any time. */
const uselessForMs = 10_000;
const maxRepositoryBytes = 8 * 1024 * 1024;
/** Of one owner: some thousand repositories. */
const maxRepositoryBytesPerOwner = 512 * 1024;

/** Remembers the schemes of registries by `Upstream.tokenKey`, and asks registries for them. */
export class KnownLogins {
  readonly #now: () => number;
  /** Requests that wait for a scheme hold its promise, so it may be evicted meanwhile. */
  readonly #registries = new LRUCache<string, KnownRegistry>({ max: maxRegistries });
  readonly #repositories = new SharedCache<KnownRepository>({
    maxBytes: maxRepositoryBytes,
    maxBytesPerOwner: maxRepositoryBytesPerOwner,
    sizeBytes: ({ scheme }) =>
      scheme.kind === "bearer"
        ? 2 * (scheme.server.realm.href.length + (scheme.server.service?.length ?? 0))
        : 0,
  });

  /** @param now milliseconds since 1970 */
  constructor(now: () => number) {
    this.#now = now;
  }

  /**
   * How to log in for a request; the registry is asked where nothing is known of it.
   * @param signal of whoever waits; the registry's request ends when the last of them has gone
   * @throws UpstreamError where the registry does not say it, or asks for what must not be done; the signal's reason
   */
  async schemeFor(upstream: Upstream, use: LoginUse, signal: AbortSignal): Promise<KnownScheme> {
    const own = this.#ownOf(upstream, use);
    if (own !== undefined) return own;
    const registry = this.#registry(upstream);
    if (registry.scheme !== undefined) return { scheme: registry.scheme, source: "registry" };
    return { scheme: await registry.learning.wait(signal), source: "asked" };
  }

  /** How the registry itself wants to be logged in to, as far as that is known. */
  schemeOfRegistry({ tokenKey }: Upstream): LoginScheme | undefined {
    return this.#registries.peek(tokenKey)?.scheme;
  }

  /**
   * Remembers what a challenge said to a request, where it is not what the registry says of all: for the repository, and
   * for such requests to it alone where the repository is known to have another scheme.
   */
  learn(upstream: Upstream, use: LoginUse, scheme: LoginScheme): void {
    const { tokenKey } = upstream;
    const ofRepository = this.#kept(upstream, resourceOf(use.scope));
    const general = ofRepository?.scheme ?? this.schemeOfRegistry(upstream);
    if (general !== undefined && isSameScheme(general, scheme)) {
      this.#repositories.delete(tokenKey, kindOf(use));
      return;
    }
    const key = ofRepository === undefined ? resourceOf(use.scope) : kindOf(use);
    const known = { scheme, source: "repository", expiresAt: Number.POSITIVE_INFINITY } as const;
    this.#repositories.set(tokenKey, key, known);
  }

  /** Remembers for ten minutes that a login helped that no challenge asked for: it is sent to the repository at once. */
  learnTried({ tokenKey }: Upstream, { scope }: LoginUse, scheme: LoginScheme): void {
    const expiresAt = this.#now() + triedForMs;
    this.#repositories.set(tokenKey, resourceOf(scope), { scheme, source: "tried", expiresAt });
  }

  /**
   * Remembers for 10 seconds that such a login did not help: requests like this one, and no others, go without it, since
   * an account that may not push may still pull.
   */
  learnUseless({ tokenKey }: Upstream, use: LoginUse): void {
    const expiresAt = this.#now() + uselessForMs;
    const known = { scheme: { kind: "none" }, source: "tried", expiresAt } as const;
    this.#repositories.set(tokenKey, kindOf(use), known);
  }

  /**
   * Asks a registry again, at most every 10 seconds, since there was no login by a scheme that was good before: its
   * token server may have moved.
   * @returns what the registry says now; undefined where it can't be reached
   * @throws UpstreamError where it asks for what must not be done, such as to log in at a host of another domain
   */
  async askAgain(upstream: Upstream, signal: AbortSignal): Promise<LoginScheme | undefined> {
    const registry = this.#registry(upstream);
    const isRecent =
      registry.askedAgain !== undefined &&
      !registry.askedAgain.scheme.isAbandoned &&
      this.#now() - registry.askedAgain.at < askAgainAfterMs;
    if (!isRecent) {
      const scheme = new SharedCall((until) =>
        discoverScheme(upstream, until).then(
          (found) => {
            registry.scheme = found;
            return found;
          },
          (error: unknown) => {
            if (!(error instanceof UpstreamError) || !unreachedFaults.has(error.fault)) throw error;
            return undefined; // what the token server said tells more
          },
        ),
      );
      registry.askedAgain = { at: this.#now(), scheme };
    }
    return await registry.askedAgain?.scheme.wait(signal);
  }

  /** Forgets that a repository has this scheme, beside what the registry says of all. */
  forget(upstream: Upstream, use: LoginUse, scheme: LoginScheme): void {
    for (const key of [kindOf(use), resourceOf(use.scope)]) {
      const kept = this.#kept(upstream, key);
      if (kept !== undefined && isSameScheme(kept.scheme, scheme)) {
        this.#repositories.delete(upstream.tokenKey, key);
      }
    }
  }

  /**
   * Notes that a token server is asked.
   * @returns after how many milliseconds it is taken for one that does not answer: 0 where others have waited long enough
   */
  tokenDueMs(upstream: Upstream): number {
    const registry = this.#registry(upstream);
    registry.unansweredSince ??= this.#now();
    return Math.max(0, registry.unansweredSince + tokenAnswerMs - this.#now());
  }

  /** Notes that a token server has answered, or that it can't be reached. */
  tokenAnswered(upstream: Upstream): void {
    this.#registry(upstream).unansweredSince = undefined;
  }

  #ownOf(upstream: Upstream, use: LoginUse): KnownRepository | undefined {
    return this.#kept(upstream, kindOf(use)) ?? this.#kept(upstream, resourceOf(use.scope));
  }

  #kept({ tokenKey }: Upstream, key: string): KnownRepository | undefined {
    const known = this.#repositories.get(tokenKey, key);
    return known !== undefined && known.expiresAt > this.#now() ? known : undefined;
  }

  #registry(upstream: Upstream): KnownRegistry {
    const { tokenKey } = upstream;
    const known = this.#registries.get(tokenKey);
    const isUsable = known?.scheme !== undefined || known?.learning.isAbandoned === false;
    if (known !== undefined && isUsable) return known;
    const learning = new SharedCall((signal) => discoverScheme(upstream, signal));
    const registry: KnownRegistry = { learning };
    this.#registries.set(tokenKey, registry);
    learning.outcome.then(
      (scheme) => {
        registry.scheme ??= scheme;
      },
      () => this.#registries.peek(tokenKey) === registry && this.#registries.delete(tokenKey),
    );
    return registry;
  }
}

/** Requests that may have another scheme, or other rights, than others to the same repository; HEAD is a GET. */
export const kindOf = ({ method, scope }: LoginUse): string =>
  `${method === "HEAD" ? "GET" : method} ${scope}`;

/** Sends `GET /v2/` without a login, as every client begins, and reads what the registry wants. */
async function discoverScheme(upstream: Upstream, signal: AbortSignal): Promise<LoginScheme> {
  const { status, headers } = await fetchHead(upstream, apiUrl(upstream, ""), {
    authorization: undefined,
    signal: AbortSignal.any([signal, AbortSignal.timeout(pingTimeoutMs)]),
  });
  if (status === 429 || status >= 500) {
    const message = `the registry ${upstream.connector.address.origin} answered ${status} to GET /v2/`;
    const retryAfterMs = retryDelayMs(status, headers, Date.now());
    throw new UpstreamError("ConnectionFailed", message, { retryAfterMs });
  }
  return status === 401 ? chooseScheme(upstream, headers["www-authenticate"]) : { kind: "none" };
}
