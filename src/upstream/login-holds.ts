/** Which logins were refused, and until when none of them is sent again: registries lock accounts after some attempts. */
import { LRUCache } from "lru-cache";
import { settledOrAborted } from "../concurrency.ts";
import { SharedCache } from "./shared-cache.ts";
import { UpstreamError } from "./upstream-error.ts";

/**
 * What comes of a login by which nothing is asked for, as `docker login` sends it: GET /v2/ with Basic, or a token without
 * scopes. Unknown where that tells nothing of the account, or nothing was answered.
 */
export type LoginVerdict = "accepted" | "refused" | "unknown";

/** A login as a request is sent with it. */
export interface SentLogin {
  /** Whose login it is: the connector, the registry's address and the credential. */
  readonly owner: string;
  /** Who decides about it: a token server with its service, or the registry itself. */
  readonly server: string;
  /** What it is sent for. A refusal may be about that alone. */
  readonly purpose: string;
  /** What the purpose is about: `repository:app`. */
  readonly resource: string;
  /** Whether there is no credential, so that no account can be locked. */
  readonly isAnonymous: boolean;
  /** Whether the account is judged before it is used for the first time. */
  readonly isJudgedFirst: boolean;
  /** Sends the login as `docker login` does. It has a time limit of its own, and goes on when clients go. */
  readonly judge: () => Promise<LoginVerdict>;
  /** What is said where that login is refused. */
  readonly refusal: () => UpstreamError;
}

/**
 * What a refusal is about where the account can't be judged.
 * - account: the login server has said so
 * - purpose: the login server has said so
 * - either: it is about the purpose, until another resource is refused as well
 */
export type RefusalScope = "account" | "purpose" | "either";

/** What was refused, and when it may be tried again. */
interface Hold {
  readonly error: UpstreamError;
  /** Refusals in a row that may be those of the account; 0 for one that is about its purpose alone. */
  readonly count: number;
  /** In milliseconds of the clock. */
  readonly retryAt: number;
}

/** An owner's login, as one server takes it. */
interface Account {
  /** Whether it was accepted, and not refused since. */
  isGood: boolean;
  hold: Hold | undefined;
  judging: Promise<LoginVerdict> | undefined;
  /** When it was last judged after a refusal, and accepted, in milliseconds of the clock. */
  judgedAt: number;
  /** The resource whose refusal may be about the account. */
  doubted: string | undefined;
}

/** An owner's login, wherever it is sent. */
interface Owner {
  /** Whether it was accepted somewhere, and refused nowhere since. Otherwise one is sent, and the others wait for what comes of it. */
  isGood: boolean;
  trial: Trial | undefined;
  /** The servers that have refused it, since one accepted it. */
  readonly refusing: Set<string>;
  /** Holds it back from all servers, once several have refused it. */
  hold: Hold | undefined;
}

/** A login that is under way, and tells others whether they may follow. */
class Trial {
  readonly #settle = Promise.withResolvers<void>();
  #timer: NodeJS.Timeout | undefined;

  get ended(): Promise<void> {
    return this.#settle.promise;
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#settle.resolve();
  }

  /** @param onTimeout is called where nobody has said in that time what came of it */
  endAfter(timeoutMs: number, onTimeout: () => void): void {
    this.#timer = setTimeout(onTimeout, timeoutMs).unref();
  }
}

const firstHoldMs = 60_000;
const maxHoldMs = 600_000;

/**
 * How long a login is held back after it was refused: a minute, then twice the time each, up to ten minutes.
 * @param refusals in a row, this one among them
 */
export const holdMsAfter = (refusals: number): number =>
  Math.min(firstHoldMs * 2 ** (refusals - 1), maxHoldMs);

/** What a good account may not do is asked for again after this time. */
const purposeHoldMs = 10_000;
/** An account that was accepted is not judged again for so long. */
const judgedForMs = 10_000;
/** Others don't wait any longer for a login that is under way. */
export const trialMs = 2_000;
/**
 * How many servers may refuse an owner's login before it is held back from all: a registry may have a service for each
 * repository, and all of them the same accounts.
 */
const maxRefusingServers = 3;
const maxOwners = 2_000;
const maxBytes = 8 * 1024 * 1024;
const maxBytesPerOwner = 256 * 1024;
/** With an error's message and its stack. */
const holdBytes = 2048;

/**
 * Keeps logins back that were refused. The rule is the same for Basic and for tokens, per connector and credential: a
 * refused account is tried again after 60 seconds, then after twice the time each, up to ten minutes. A refusal may be
 * about one repository alone, so the account is judged first.
 */
export class LoginHolds {
  readonly #now: () => number;
  readonly #accounts = new SharedCache<Account>({
    maxBytes,
    maxBytesPerOwner,
    sizeBytes: () => holdBytes,
  });
  readonly #purposes = new SharedCache<Hold>({
    maxBytes,
    maxBytesPerOwner,
    sizeBytes: () => holdBytes,
  });

  readonly #owners = new LRUCache<string, Owner>({ max: maxOwners });

  /** @param now milliseconds since 1970 */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Why a login is not sent now, with how long that lasts; undefined where it may be. */
  heldBy(login: SentLogin): UpstreamError | undefined {
    const { owner, server } = login;
    const holds = [
      this.#owners.get(owner)?.hold,
      this.#accounts.get(owner, server)?.hold,
      this.#purposes.get(owner, purposeKey(login)),
    ];
    const hold = holds.find((each) => this.#isHeld(each));
    return hold && this.#errorOf(hold);
  }

  /**
   * Waits until a login may be sent. Whoever sends it says by `accepted`, `refused` or `undecided` what came of it.
   * @returns whether others wait for that
   * @throws UpstreamError where the login is held back, with `retryAfterMs`; the signal's reason
   */
  async admit(login: SentLogin, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      const held = this.heldBy(login);
      if (held !== undefined) throw held;
      if (login.isAnonymous || this.#isGood(login)) return false;
      if (await this.#beginTrial(login, signal)) return true;
    }
  }

  #isGood(login: SentLogin): boolean {
    const { isGood, hold } = this.#accountOf(login);
    const isNewServer = hold === undefined && !login.isJudgedFirst;
    return this.#ownerOf(login).isGood && (isGood || isNewServer);
  }

  /**
   * Has one login sent where nobody knows yet whether it is good.
   * @returns false after others were waited for
   */
  async #beginTrial(login: SentLogin, signal: AbortSignal): Promise<boolean> {
    const owner = this.#ownerOf(login);
    if (owner.trial !== undefined) {
      await settledOrAborted(owner.trial.ended, signal);
      return false;
    }
    const trial = new Trial();
    owner.trial = trial;
    const account = this.#accountOf(login);
    const isSuspect = account.hold !== undefined || owner.refusing.size > 0;
    if (account.judging !== undefined || isSuspect || login.isJudgedFirst) {
      const judged = this.#judge(login, account.hold?.error);
      const verdict = await settledOrAborted(judged, signal).catch((error: unknown) => {
        endTrial(owner);
        throw error;
      });
      if (verdict !== "unknown") {
        endTrial(owner);
        return false;
      }
    }
    trial.endAfter(trialMs, () => this.undecided(login));
    return true;
  }

  /** The login was good for what it was sent for. */
  accepted(login: SentLogin): void {
    const account = this.#accountOf(login);
    if (login.isAnonymous || this.#isHeld(account.hold)) return; // it was sent before the account was refused
    account.doubted = undefined;
    this.#purposes.delete(login.owner, purposeKey(login));
    this.#setGood(login);
  }

  /** Nothing was said of the login. */
  undecided(login: SentLogin): void {
    const owner = this.#ownerOf(login);
    const isSuspect = owner.refusing.size > 0 || this.#accountOf(login).hold !== undefined;
    if (owner.trial !== undefined && !isSuspect) this.#setGood(login);
    endTrial(owner);
  }

  #setGood(login: SentLogin): void {
    const owner = this.#ownerOf(login);
    const account = this.#accountOf(login);
    account.isGood = true;
    account.hold = undefined;
    owner.isGood = true;
    owner.hold = undefined;
    owner.refusing.clear();
    endTrial(owner);
  }

  /**
   * The login was refused for what it was sent for. What follows from that has to be found out also where the client goes.
   * @returns why it is held back from now on; undefined where the account is good, and the refusal is about the purpose
   */
  async refused(
    login: SentLogin,
    error: UpstreamError,
    ifUnknown: RefusalScope,
  ): Promise<UpstreamError | undefined> {
    const account = this.#accountOf(login);
    try {
      const verdict = await this.#verdictOn(login, error, ifUnknown);
      if (this.#isHeld(account.hold)) return this.#errorOf(account.hold);
      if (verdict === "unknown" && isAboutAccount(account, login, ifUnknown)) {
        return this.#errorOf(this.#hold(login, error));
      }
      const isDoubted = verdict === "unknown" && ifUnknown === "either";
      if (isDoubted) account.doubted = login.resource;
      this.#holdPurpose(login, error, isDoubted);
      return undefined;
    } finally {
      endTrial(this.#ownerOf(login));
    }
  }

  async #verdictOn(
    login: SentLogin,
    error: UpstreamError,
    ifUnknown: RefusalScope,
  ): Promise<LoginVerdict> {
    const account = this.#accountOf(login);
    if (login.isAnonymous || this.#isHeld(account.hold)) return "accepted";
    if (this.#now() < account.judgedAt + judgedForMs) return "accepted";
    if (ifUnknown !== "purpose") this.#ownerOf(login).isGood = false; // others wait until it is judged
    const verdict = await this.#judge(login, error);
    if (verdict === "accepted") account.judgedAt = this.#now();
    return verdict;
  }

  /** Judges an account, once for all who wait for that. What comes of it counts for all. */
  #judge(login: SentLogin, error: UpstreamError | undefined): Promise<LoginVerdict> {
    const account = this.#accountOf(login);
    account.judging ??= login
      .judge()
      .then((verdict) => {
        if (verdict === "refused") this.#hold(login, error ?? login.refusal());
        if (verdict === "accepted") this.#setGood(login);
        return verdict;
      })
      .finally(() => {
        account.judging = undefined;
      });
    return account.judging;
  }

  #accountOf({ owner, server }: SentLogin): Account {
    const known = this.#accounts.get(owner, server);
    if (known !== undefined) return known;
    const account: Account = {
      isGood: false,
      hold: undefined,
      judging: undefined,
      judgedAt: Number.NEGATIVE_INFINITY,
      doubted: undefined,
    };
    this.#accounts.set(owner, server, account);
    return account;
  }

  #ownerOf({ owner: key }: SentLogin): Owner {
    const known = this.#owners.get(key);
    if (known !== undefined) return known;
    const owner: Owner = {
      isGood: false,
      trial: undefined,
      refusing: new Set(),
      hold: undefined,
    };
    this.#owners.set(key, owner);
    return owner;
  }

  #hold(login: SentLogin, error: UpstreamError): Hold {
    const account = this.#accountOf(login);
    const owner = this.#ownerOf(login);
    const hold = this.#after(account.hold, error);
    account.isGood = false;
    account.hold = hold;
    account.judgedAt = Number.NEGATIVE_INFINITY;
    owner.isGood = false;
    if (owner.refusing.size < maxRefusingServers) owner.refusing.add(login.server);
    if (owner.refusing.size === maxRefusingServers) owner.hold = this.#after(owner.hold, error);
    return hold;
  }

  #holdPurpose(login: SentLogin, error: UpstreamError, isDoubted: boolean): void {
    const { owner } = login;
    const key = purposeKey(login);
    const again = this.#after(this.#purposes.get(owner, key), error);
    const soon = { error, count: 0, retryAt: this.#now() + purposeHoldMs };
    this.#purposes.set(owner, key, isDoubted ? again : soon);
  }

  /** The hold after another refusal. */
  #after(before: Hold | undefined, error: UpstreamError): Hold {
    const count = (before?.count ?? 0) + 1;
    return { error, count, retryAt: this.#now() + holdMsAfter(count) };
  }

  #isHeld(hold: Hold | undefined): hold is Hold {
    return hold !== undefined && hold.retryAt > this.#now();
  }

  #errorOf({ error, count, retryAt }: Hold): UpstreamError {
    const { fault, message, detail, cause } = error;
    const retryAfterMs = Math.max(retryAt - this.#now(), 1_000); // a Retry-After of 0 would mean: now
    const seconds = Math.ceil(retryAfterMs / 1000);
    const next =
      count > 0
        ? `so that no account is locked out, the next attempt is in ${seconds} s, or when the Secret changes`
        : `the next attempt is in ${seconds} s`;
    return new UpstreamError(fault, message, {
      detail: detail === undefined ? next : `${detail}; ${next}`,
      retryAfterMs,
      cause,
    });
  }
}

const purposeKey = ({ server, purpose }: SentLogin): string => `${server} ${purpose}`;

function endTrial(owner: Owner): void {
  owner.trial?.end();
  owner.trial = undefined;
}

const isAboutAccount = (
  { doubted }: Account,
  { resource }: SentLogin,
  scope: RefusalScope,
): boolean => scope === "account" || (scope === "either" && (doubted ?? resource) !== resource);
