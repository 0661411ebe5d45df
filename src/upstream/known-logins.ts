/** What is known of how registries want to be logged in to: of each one, and of repositories of theirs that differ. */
import { LRUCache } from "lru-cache";
import { SharedCall, settledOrAborted } from "../concurrency.ts";
import { apiUrl, fetchHead } from "./fetch-head.ts";
import { chooseScheme, isSameScheme, type LoginScheme, resourceOf } from "./login-scheme.ts";
import { retryDelayMs } from "./retry-after.ts";
import { SharedCache } from "./shared-cache.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError, type UpstreamFault } from "./upstream-error.ts";

/** How to log in for a request. */
export interface KnownScheme {
  readonly scheme: LoginScheme;
  /**
   * Where it is known from:
   * - asked: the registry was asked for this request
   * - registry: the registry was asked before
   * - repository: a challenge for this repository said so
   * - tried: the login was sent to this repository without a challenge
   */
  readonly source: "asked" | "registry" | "repository" | "tried";
}

/** A login that is sent where the registry has not asked for it, to see what comes of it. */
export interface LoginTrial {
  readonly scheme: LoginScheme;
  /** Says what came of it. Only the first call counts. */
  end(outcome: TrialOutcome): void;
}

/**
 * What came of a login that the registry had not asked for.
 * - accepted: the login is sent to this repository from now on
 * - useless: less is answered than without it
 * - refused: the registry does not accept the login
 * - unknown: nothing was answered
 */
export type TrialOutcome = "accepted" | "useless" | "refused" | "unknown";

interface KnownRegistry {
  /** Pending while the registry is asked. */
  readonly learning: SharedCall<LoginScheme>;
  /** The scheme, once it is known. */
  scheme?: LoginScheme;
  /** The last time that the registry was asked again, and what it said; undefined where it could not be told. */
  askedAgain?: { readonly at: number; readonly scheme: SharedCall<LoginScheme | undefined> };
  /** Settles when the trial that is under way has an outcome. */
  trial?: Promise<void>;
  /** Until when trials need not wait for each other, since the login was accepted. */
  acceptedUntil: number;
  /** Until when no trial begins, since the login was refused. */
  refusedUntil: number;
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
/** How long it is remembered what came of a login that was sent without a challenge. */
const triedForMs = 600_000;
/** After a login that was refused, none is sent without a challenge for so long, since registries lock accounts out. */
const refusedForMs = 10_000;
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
   * @param scope the first one of the request: `repository:app:pull`
   * @param signal of whoever waits; the registry's request ends when the last of them has gone
   * @throws UpstreamError where the registry does not say it, or asks for what must not be done; the signal's reason
   */
  async schemeFor(upstream: Upstream, scope: string, signal: AbortSignal): Promise<KnownScheme> {
    const own = this.#repository(upstream, scope);
    if (own !== undefined) return own;
    const registry = this.#registry(upstream);
    if (registry.scheme !== undefined) return { scheme: registry.scheme, source: "registry" };
    return { scheme: await registry.learning.wait(signal), source: "asked" };
  }

  /** Remembers what a challenge said of a repository, where it is not what the registry says of all. */
  learn({ tokenKey }: Upstream, scope: string, scheme: LoginScheme): void {
    const known = this.#registries.peek(tokenKey)?.scheme;
    if (known !== undefined && isSameScheme(known, scheme)) {
      this.#repositories.delete(tokenKey, resourceOf(scope));
    } else {
      const expiresAt = Number.POSITIVE_INFINITY;
      const known: KnownRepository = { scheme, source: "repository", expiresAt };
      this.#repositories.set(tokenKey, resourceOf(scope), known);
    }
  }

  /**
   * Remembers for ten minutes what came of a login without a challenge: it is sent to the repository; or, for requests
   * with just this scope, it is not, since an account that may not push may still pull.
   * @param scheme `none` where it is not sent
   */
  learnTried({ tokenKey }: Upstream, scope: string, scheme: LoginScheme): void {
    const expiresAt = this.#now() + triedForMs;
    const key = scheme.kind === "none" ? scope : resourceOf(scope);
    this.#repositories.set(tokenKey, key, { scheme, source: "tried", expiresAt });
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
  forget(upstream: Upstream, scope: string, scheme: LoginScheme): void {
    const own = this.#repository(upstream, scope);
    if (own !== undefined && isSameScheme(own.scheme, scheme)) {
      this.#repositories.delete(upstream.tokenKey, resourceOf(scope));
      this.#registry(upstream).acceptedUntil = 0;
    }
  }

  /**
   * Begins to send the login where the registry has not asked for it. As long as nobody knows whether the registry
   * accepts the login at all, one trial waits for the other, so that a wrong password is sent once and not by a hundred
   * requests at a time.
   * @param offered how it is sent
   * @returns undefined where it is known that it does not help
   */
  async beginTrial(
    upstream: Upstream,
    scope: string,
    offered: LoginScheme,
    signal: AbortSignal,
  ): Promise<LoginTrial | undefined> {
    const registry = this.#registry(upstream);
    while (registry.trial !== undefined && registry.acceptedUntil <= this.#now()) {
      await settledOrAborted(registry.trial, signal);
    }
    const own = this.#repository(upstream, scope);
    if (own?.scheme.kind === "none" || registry.refusedUntil > this.#now()) return undefined;
    if (own !== undefined) return { scheme: own.scheme, end: () => undefined };
    const { promise, resolve } = Promise.withResolvers<void>();
    registry.trial = promise;
    let hasEnded = false;
    const end = (outcome: TrialOutcome): void => {
      if (hasEnded) return;
      hasEnded = true;
      if (registry.trial === promise) delete registry.trial;
      this.#endTrial(upstream, scope, offered, outcome);
      resolve();
    };
    return { scheme: offered, end };
  }

  #endTrial(upstream: Upstream, scope: string, offered: LoginScheme, outcome: TrialOutcome): void {
    if (outcome === "unknown") return;
    const registry = this.#registry(upstream);
    if (outcome === "refused") this.#refused(registry);
    else registry.acceptedUntil = this.#now() + triedForMs;
    this.learnTried(upstream, scope, outcome === "accepted" ? offered : { kind: "none" });
  }

  /** Whether a login that nobody asked for may be sent: none was refused in the last seconds. */
  mayTry(upstream: Upstream): boolean {
    return this.#registry(upstream).refusedUntil <= this.#now();
  }

  /** The registry has refused a login that it had not asked for. None is sent to it for some time. */
  #refused(registry: KnownRegistry): void {
    registry.acceptedUntil = 0;
    registry.refusedUntil = this.#now() + refusedForMs;
  }

  #repository({ tokenKey }: Upstream, scope: string): KnownRepository | undefined {
    return [resourceOf(scope), scope]
      .map((key) => this.#repositories.get(tokenKey, key))
      .find((known) => known !== undefined && known.expiresAt > this.#now());
  }

  #registry(upstream: Upstream): KnownRegistry {
    const { tokenKey } = upstream;
    const known = this.#registries.get(tokenKey);
    const isUsable = known?.scheme !== undefined || known?.learning.isAbandoned === false;
    if (known !== undefined && isUsable) return known;
    const learning = new SharedCall((signal) => discoverScheme(upstream, signal));
    const registry: KnownRegistry = { learning, acceptedUntil: 0, refusedUntil: 0 };
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
