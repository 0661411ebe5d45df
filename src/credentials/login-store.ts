/** Keeps the logins of identities: one exchange for all who wait, renewed before they end, dropped when nobody uses them. */
import type { Credential } from "../connector/credential.ts";
import { type Login, LoginError } from "./login.ts";

/** An identity that may be used now, and how a login is made of it. */
export interface CheckedIdentity {
  /** Another one means that a login of before is not good any more. */
  readonly version: string;
  /** @throws LoginError; Unavailable */
  readonly obtain: (signal: AbortSignal) => Promise<Login>;
}

/** Where the login of a connector comes from. */
export interface LoginSource {
  /** The connector's UID. */
  readonly key: string;
  /** `namespace/name` of the connector, for those who hear of outcomes. */
  readonly connector: string;
  /** The connector's namespace. */
  readonly owner: string;
  /** The method, for those who hear of outcomes: `oidcAuth`. */
  readonly method: string;
  /** Whose login it is, in words: `ServiceAccount team-a/puller`. */
  readonly identity: string;
  /** Differs where the connector's spec asks for another login. */
  readonly version: string;
  /**
   * Looks whether the identity may still be used.
   * @throws LoginError where it may not; Unavailable where nobody can say now
   */
  readonly check: () => Promise<CheckedIdentity>;
}

/** A login that is kept. All times are in milliseconds since 1970, by our clock. */
export interface KeptLogin {
  readonly credential: Credential;
  readonly obtainedAt: number;
  /** When it ends, as whoever gave it says. */
  readonly expiresAt: number;
  /** When the next use begins to renew it. */
  readonly renewAt: number;
  /** Until when it is used: clocks may differ by a minute. */
  readonly usableUntil: number;
}

/** What came of an attempt to get a login. */
export interface LoginOutcome {
  readonly connector: string;
  readonly method: string;
  /** Whose login it is, in words. */
  readonly identity: string;
  readonly durationMs: number;
  /** Undefined where there is a login. */
  readonly error: unknown;
}

export interface LoginStoreOptions {
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
  /** Is called for each attempt to get a login. */
  readonly onOutcome?: ((outcome: LoginOutcome) => void) | undefined;
}

/** How a login is asked for. */
export interface UseOptions {
  /** Whether the registry has refused the login that the store has. */
  readonly isRefused?: boolean;
}

interface Entry {
  readonly source: Pick<LoginSource, "connector" | "owner" | "method">;
  readonly version: string;
  login: KeptLogin | undefined;
  obtaining: Promise<KeptLogin> | undefined;
  failure:
    | { readonly error: unknown; readonly count: number; readonly retryAt: number }
    | undefined;
  identity: CheckedIdentity | undefined;
  checking: Promise<void> | undefined;
  /** When the identity is looked at again. */
  checkAt: number;
  /** Until when a login is used although nobody has looked at its identity again. */
  trustedUntil: number;
  refusal: LoginError | undefined;
  usedAt: number;
}

/** How often an identity is looked at while its login is used. */
const checkMs = 60_000;
/** A look that is late waits no longer than this behind the uses of a login. */
const lateCheckMs = 30_000;
/** How soon a look is repeated that came to nothing, or to a refusal. */
const checkAgainMs = 5_000;
/** Renewed at 80 % of its life, give or take five: all nodes of a cluster have such a login. */
const minUsedShare = 0.75;
const usedShareSpread = 0.1;
/** Clocks may differ by a minute; of a short life this share is left unused. */
const maxSkewMs = 60_000;
const unusedShare = 0.1;
/** Of a login that does not say how long it lives, or that says it has ended already. */
const unknownLifeMs = 10 * 60_000;
const obtainTimeoutMs = 30_000;
/** After a failure the next attempt comes so late, and twice as late each time. */
const initialRetryMs = 1_000;
const maxRetryMs = 60_000;
const maxServerRetryMs = 10 * 60_000;
/** A login that the registry refuses is replaced, unless it is as young as this. */
const refusedAgeMs = 60_000;
const unusedMs = 60 * 60_000;
const sweepMs = 60_000;
const maxLogins = 1_000;
/** Attempts at a time: of one namespace, and of all. */
const maxAttemptsPerOwner = 16;
const maxAttempts = 64;

/** Logins by the UID of their connector. */
export class LoginStore {
  readonly #options: LoginStoreOptions;
  /** In the order of their last use. A plain Map, since whose login goes first depends on how many its namespace has. */
  readonly #entries = new Map<string, Entry>();
  readonly #attempts = new Map<string, number>();
  #attemptsOfAll = 0;
  readonly #sweeps: NodeJS.Timeout;

  constructor(options: LoginStoreOptions) {
    this.#options = options;
    this.#sweeps = setInterval(() => this.forgetUnused(), sweepMs).unref();
  }

  /**
   * The login of a connector: the one that is kept, or a new one.
   * @throws LoginError; Unavailable where nobody can say now
   */
  async use(source: LoginSource, { isRefused = false }: UseOptions = {}): Promise<KeptLogin> {
    const entry = this.#entryFor(source);
    await this.#ensureChecked(entry, source);
    const { login } = entry;
    const now = this.#options.now();
    if (login === undefined || now >= login.usableUntil) return await this.#obtain(entry, source);
    if (isRefused && now - login.obtainedAt >= refusedAgeMs) {
      return await this.#obtain(entry, source).catch(() => login);
    }
    if (now >= login.renewAt) this.#obtain(entry, source).catch(() => undefined);
    return login;
  }

  /** The login that a connector has now, if it is good for some time. It does not count as used. */
  peek({ key, version }: Pick<LoginSource, "key" | "version">): KeptLogin | undefined {
    const entry = this.#entries.get(key);
    const login = entry?.version === version ? entry.login : undefined;
    return login !== undefined && this.#options.now() < login.usableUntil ? login : undefined;
  }

  /** Forgets the logins of a connector, `namespace/name`. */
  drop(connector: string): void {
    for (const [key, { source }] of this.#entries) {
      if (source.connector === connector) this.#entries.delete(key);
    }
  }

  /** The logins that are kept, for metrics. */
  logins(): readonly {
    readonly connector: string;
    readonly method: string;
    readonly expiresAt: number;
  }[] {
    return [...this.#entries.values()].flatMap(({ source, login }) =>
      login === undefined ? [] : [{ ...pick(source), expiresAt: login.expiresAt }],
    );
  }

  /** Forgets what nobody has used for an hour. It runs each minute. */
  forgetUnused(): void {
    const now = this.#options.now();
    for (const [key, { usedAt }] of this.#entries) {
      if (now - usedAt >= unusedMs) this.#entries.delete(key);
    }
  }

  /** Forgets all logins. */
  stop(): void {
    clearInterval(this.#sweeps);
    this.#entries.clear();
  }

  #entryFor(source: SourceParts): Entry {
    const { key, version } = source;
    const known = this.#entries.get(key);
    const entry = known?.version === version ? known : newEntry(source);
    entry.usedAt = this.#options.now();
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size > maxLogins) this.#evict();
    return entry;
  }

  /** Takes the login away that was not used for longest, of the namespace with the most. */
  #evict(): void {
    const counts = new Map<string, number>();
    for (const { source } of this.#entries.values()) {
      counts.set(source.owner, (counts.get(source.owner) ?? 0) + 1);
    }
    const most = Math.max(...counts.values());
    for (const [key, { source }] of this.#entries) {
      if (counts.get(source.owner) !== most) continue;
      this.#entries.delete(key);
      return;
    }
  }

  /** @throws LoginError where the identity may not be used any more; Unavailable where nobody has looked at it yet */
  async #ensureChecked(entry: Entry, source: LoginSource): Promise<void> {
    const now = this.#options.now();
    if (now >= entry.checkAt) {
      entry.checking ??= this.#check(entry, source).finally(() => {
        entry.checking = undefined;
      });
      const mayGoOn = entry.login !== undefined && now < entry.trustedUntil;
      if (!mayGoOn) await entry.checking;
      else entry.checking.catch(() => undefined);
    }
    if (entry.refusal !== undefined) throw entry.refusal;
  }

  async #check(entry: Entry, source: LoginSource): Promise<void> {
    const { now } = this.#options;
    try {
      const identity = await source.check();
      if (entry.identity !== undefined && entry.identity.version !== identity.version) {
        entry.login = undefined;
        entry.failure = undefined;
      }
      entry.identity = identity;
      entry.refusal = undefined;
      entry.checkAt = now() + checkMs;
      entry.trustedUntil = entry.checkAt + lateCheckMs;
    } catch (error) {
      entry.checkAt = now() + checkAgainMs;
      if (error instanceof LoginError) {
        entry.refusal = error;
        entry.login = undefined;
        return;
      }
      // Nobody can say now: what is there is used until its end.
      entry.trustedUntil = entry.checkAt + lateCheckMs;
      if (entry.login === undefined) throw error;
    }
  }

  /** @throws the error of the last attempt, where it is too early for another one */
  async #obtain(entry: Entry, source: LoginSource): Promise<KeptLogin> {
    if (entry.obtaining === undefined) {
      const { failure, refusal } = entry;
      if (refusal !== undefined) throw refusal; // a look behind this use has just found that
      if (failure !== undefined && this.#options.now() < failure.retryAt) throw failure.error;
      this.#admit(source);
      entry.obtaining = this.#attempt(entry, source).finally(() => {
        entry.obtaining = undefined;
        this.#leave(source);
      });
    }
    return await entry.obtaining;
  }

  #admit({ owner }: Pick<LoginSource, "owner">): void {
    const ofOwner = this.#attempts.get(owner) ?? 0;
    if (ofOwner >= maxAttemptsPerOwner || this.#attemptsOfAll >= maxAttempts) {
      const message = "too many logins are being obtained at a time; try again in some seconds";
      throw new LoginError("ExchangeFailed", message, { isTransient: true });
    }
    this.#attempts.set(owner, ofOwner + 1);
    this.#attemptsOfAll += 1;
  }

  #leave({ owner }: Pick<LoginSource, "owner">): void {
    const left = (this.#attempts.get(owner) ?? 1) - 1;
    if (left === 0) this.#attempts.delete(owner);
    else this.#attempts.set(owner, left);
    this.#attemptsOfAll -= 1;
  }

  async #attempt(entry: Entry, source: LoginSource): Promise<KeptLogin> {
    const { now, onOutcome } = this.#options;
    const { identity } = entry;
    if (identity === undefined) throw changedMeanwhile(); // it was looked at before
    const startedAt = now();
    const report = (error: unknown): void =>
      onOutcome?.({
        ...pick(source),
        identity: source.identity,
        durationMs: now() - startedAt,
        error,
      });
    try {
      const login = await identity.obtain(AbortSignal.timeout(obtainTimeoutMs));
      const kept = this.#keep(login, startedAt);
      // A look at the identity in the meantime may have found another one, or none that may be used.
      if (entry.refusal !== undefined) throw entry.refusal;
      if (entry.identity?.version !== identity.version) throw changedMeanwhile();
      entry.login = kept;
      entry.failure = undefined;
      report(undefined);
      return kept;
    } catch (cause) {
      const error = asTimeout(cause);
      const count = (entry.failure?.count ?? 0) + 1;
      entry.failure = { error, count, retryAt: now() + this.#retryMs(error, count) };
      report(error);
      throw error;
    }
  }

  #retryMs(error: unknown, count: number): number {
    const own = Math.min(initialRetryMs * 2 ** Math.min(count - 1, 10), maxRetryMs);
    const asked = error instanceof LoginError ? (error.retryAfterMs ?? 0) : 0;
    const jittered = own * (0.75 + this.#options.random() / 2);
    return Math.max(jittered, Math.min(asked, maxServerRetryMs));
  }

  #keep({ credential, expiresAt }: Login, obtainedAt: number): KeptLogin {
    const said = (expiresAt ?? 0) - obtainedAt;
    const lifeMs = said > 0 ? said : unknownLifeMs;
    const share = minUsedShare + usedShareSpread * this.#options.random();
    return {
      credential,
      obtainedAt,
      expiresAt: obtainedAt + lifeMs,
      renewAt: obtainedAt + lifeMs * share,
      usableUntil: obtainedAt + lifeMs - Math.min(maxSkewMs, lifeMs * unusedShare),
    };
  }
}

/** What a store knows of a source. */
type SourceParts = Omit<LoginSource, "check">;

const pick = ({
  connector,
  method,
}: Pick<LoginSource, "connector" | "method">): Pick<LoginOutcome, "connector" | "method"> => ({
  connector,
  method,
});

const newEntry = ({ connector, owner, method, version }: SourceParts): Entry => ({
  source: { connector, owner, method },
  version,
  login: undefined,
  obtaining: undefined,
  failure: undefined,
  identity: undefined,
  checking: undefined,
  checkAt: Number.NEGATIVE_INFINITY,
  trustedUntil: Number.NEGATIVE_INFINITY,
  refusal: undefined,
  usedAt: 0,
});

const changedMeanwhile = (): LoginError =>
  new LoginError("ExchangeFailed", "the identity has changed while its login was obtained", {
    isTransient: true,
  });

function asTimeout(error: unknown): unknown {
  if (!(error instanceof Error) || error.name !== "TimeoutError") return error;
  const message = `no login came within ${obtainTimeoutMs / 1000} s`;
  return new LoginError("ExchangeFailed", message, { isTransient: true, cause: error });
}
