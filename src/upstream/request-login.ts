/** The login of one request: which Authorization it is sent with, and what a refusal changes about that. */
import { setTimeout as sleep } from "node:timers/promises";
import { settledOrAborted } from "../concurrency.ts";
import { showRef } from "../connector/connector-ref.ts";
import { basicLoginOf, basicRefusal } from "./basic-login.ts";
import type { KnownLogins, KnownScheme, LoginRequest, LoginUse } from "./known-logins.ts";
import type { LoginHolds, SentLogin } from "./login-holds.ts";
import {
  type ChallengeHeaders,
  chooseScheme,
  directAuthorization,
  hasSameRealm,
  isSameScheme,
  type LoginScheme,
  readScopeChallenge,
  schemeToTry,
} from "./login-scheme.ts";
import type { TokenCache, TokenOutcome } from "./token-cache.ts";
import type { TokenRequest, TokenServer } from "./token-client.ts";
import type { Upstream } from "./upstream.ts";
import { isRefusal, UpstreamError } from "./upstream-error.ts";

/** What a registry has answered, as far as its login is concerned. */
export interface LoginResponse {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface RequestLoginOptions {
  readonly upstream: Upstream;
  readonly request: LoginRequest;
  readonly known: KnownLogins;
  readonly tokens: TokenCache;
  /** Holds back logins by Basic. Those for tokens are the token cache's. */
  readonly holds: LoginHolds;
  /** Is aborted when nobody waits for the request any more. */
  readonly signal: AbortSignal;
  /** Is called for each token that is needed, with the connector as `namespace/name`. */
  readonly onTokenOutcome: (connector: string, outcome: TokenOutcome) => void;
}

/** Makes the Authorization headers of one request, one for each time that it is sent. */
export class RequestLogin {
  readonly #options: RequestLoginOptions;
  readonly #use: LoginUse;
  #scopes: readonly string[];
  /** How the request was sent the last time. */
  #sent: KnownScheme | undefined;
  #authorization: string | undefined;
  #tokenOutcome: TokenOutcome | undefined;
  /** Whether the login is sent without a challenge, and nobody knows yet what comes of it. */
  #isTrial = false;
  /** Whether others wait for what comes of a login by Basic. */
  #isAwaited = false;
  /** Whether something else was tried already: a login that was not asked for, a new scheme, a new token, more actions, another scheme by `/v2/`. */
  #hasTriedLogin = false;
  #hasNewScheme = false;
  #hasNewToken = false;
  #hasMoreActions = false;
  #hasAskedAgain = false;
  /** Whether the registry has answered 404 without a login. */
  #isMissing = false;

  constructor(options: RequestLoginOptions) {
    this.#options = options;
    const { method, scopes } = options.request;
    this.#scopes = scopes;
    this.#use = { method, scope: scopes[0] ?? "" };
  }

  /** Whether other requests wait for what comes of this one's login. */
  get isAwaited(): boolean {
    return this.#isAwaited;
  }

  /** Whether without the next Authorization the last response would stand. */
  get isOptional(): boolean {
    return this.#isTrial || this.#isMissing || this.#hasMoreActions;
  }

  /**
   * Makes the next Authorization header.
   * @returns undefined where the registry wants no login, or wants Basic and the connector has no credential
   * @throws UpstreamError, or the signal's reason
   */
  async authorization(): Promise<string | undefined> {
    const { upstream, known, signal } = this.#options;
    this.#sent ??= await known.schemeFor(upstream, this.#use, signal);
    const { scheme, source } = this.#sent;
    const mayHaveMoved = source !== "asked" && !this.#hasAskedAgain && !this.isOptional;
    this.#authorization = mayHaveMoved
      ? await this.#headerOrAskAgain(this.#sent)
      : await this.#header(scheme, signal);
    return this.#authorization;
  }

  /**
   * The header by a scheme that was good before. Where there is none, or a token server does not answer, the registry is
   * asked whether it still wants that scheme.
   */
  async #headerOrAskAgain(sent: KnownScheme): Promise<string | undefined> {
    const { upstream, known, signal } = this.#options;
    const { scheme, source } = sent;
    const { value, error, moved } = await this.#headerUnlessMoved(sent);
    if (moved !== undefined) return await this.#switchTo(moved, scheme);
    if (error === undefined) return value;
    if (!(error instanceof UpstreamError) || this.#hasAskedAgain) throw error;
    this.#hasAskedAgain = true;
    const isRefused = source === "repository" && isRefusal(error);
    // A repository's own scheme may be out of date: the next request begins with what the registry says of all.
    if (isRefused) known.forget(upstream, this.#use, scheme);
    const now = await known.askAgain(upstream, signal);
    if (now === undefined || isSameScheme(now, scheme)) throw error;
    if (isRefused && hasSameRealm(now, scheme)) throw error;
    return await this.#switchTo(now, scheme);
  }

  async #switchTo(scheme: LoginScheme, before: LoginScheme): Promise<string | undefined> {
    const { upstream, known, signal } = this.#options;
    known.forget(upstream, this.#use, before);
    this.#sent = { scheme, source: "registry" };
    return await this.#header(scheme, signal);
  }

  /**
   * The header, or the scheme that the registry names by now where a token server takes its time: clients may leave
   * before that gives up.
   */
  async #headerUnlessMoved({ scheme, source }: KnownScheme): Promise<HeaderOutcome> {
    const { upstream, known, tokens, signal } = this.#options;
    const isAtHand =
      scheme.kind !== "bearer" || tokens.has(upstream.tokenKey, this.#tokenRequest(scheme.server));
    if (isAtHand) return await outcomeOf(this.#header(scheme, signal));
    const left = new AbortController();
    const header = outcomeOf(this.#header(scheme, AbortSignal.any([signal, left.signal])));
    const isLate = await this.#isLate(header);
    if (!isLate) return await header;
    this.#hasAskedAgain = true;
    const asked = known.askAgain(upstream, signal).catch(() => undefined); // the token server may answer yet
    const moved = await Promise.race([header.then(() => undefined), asked]);
    const isElsewhere = source !== "repository" || !hasSameRealm(moved, scheme);
    if (moved === undefined || isSameScheme(moved, scheme) || !isElsewhere) return await header;
    left.abort(new Error("the registry names another token server by now"));
    return { moved };
  }

  /** Waits for a token server's answer; true where that is taking too long. */
  async #isLate(header: Promise<HeaderOutcome>): Promise<boolean> {
    const { upstream, known } = this.#options;
    const timer = new AbortController();
    const dueMs = known.tokenDueMs(upstream);
    const isHere = header.then(({ error }) => {
      timer.abort();
      const isAnswer = error === undefined || error instanceof UpstreamError;
      if (isAnswer && this.#tokenOutcome !== "cached") known.tokenAnswered(upstream);
      return false;
    });
    const isDue = sleep(dueMs, true, { signal: timer.signal }).catch(() => false);
    return await Promise.race([isHere, isDue]);
  }

  /** @throws UpstreamError where there is no token, or the login is held back since it was refused */
  async #header(scheme: LoginScheme, signal: AbortSignal): Promise<string | undefined> {
    const { upstream, tokens, onTokenOutcome } = this.#options;
    this.#tokenOutcome = undefined;
    if (scheme.kind === "none") return undefined;
    if (scheme.kind === "basic") return await this.#basicHeader(signal);
    const onOutcome = (outcome: TokenOutcome): void => {
      this.#tokenOutcome = outcome;
      onTokenOutcome(showRef(upstream.connector), outcome);
    };
    const request = this.#tokenRequest(scheme.server);
    return `Bearer ${await tokens.token(upstream.tokenKey, request, onOutcome, signal)}`;
  }

  async #basicHeader(signal: AbortSignal): Promise<string | undefined> {
    const { credential } = this.#options.upstream.secrets;
    if (credential === undefined) return undefined;
    this.#isAwaited = await this.#options.holds.admit(this.#basicLogin, signal);
    return directAuthorization(credential);
  }

  get #basicLogin(): SentLogin {
    const { upstream, known } = this.#options;
    return basicLoginOf(upstream, this.#use, known.schemeOfRegistry(upstream));
  }

  #tokenRequest(server: TokenServer): TokenRequest {
    const { secrets, send, guard } = this.#options.upstream;
    return { ...server, scopes: this.#scopes, credential: secrets.credential, send, guard };
  }

  /**
   * Learns from a response.
   * @returns whether the request is to be sent again, with another Authorization
   * @throws UpstreamError where the challenge asks for what must not be done, or the login was refused and is held back
   */
  async learnFrom({ status, headers }: LoginResponse): Promise<boolean> {
    const challenge = headers["www-authenticate"];
    if (status === 401) return await this.#learnFrom401(challenge);
    if (status === 403) return await this.#learnFrom403(challenge);
    if (status === 404 && this.#mayTryLogin) {
      this.#isMissing = true;
      return this.#beginTrial(challenge);
    }
    this.#endTrial(true);
    if (status < 400) this.accepted();
    return false;
  }

  /**
   * Learns from the response to a request that can't be sent again.
   * @returns whether the client's next attempt is to have another Authorization
   * @throws UpstreamError where the challenge asks for what must not be done, or the login was refused and is held back
   */
  async learnForNextRequest({ status, headers }: LoginResponse): Promise<boolean> {
    const challenge = headers["www-authenticate"];
    if (status < 400) this.accepted();
    if (status === 403) this.#dropDeniedToken(); // the 403 is passed on all the same, since most denials are meant
    if (status === 401 && challenge !== undefined) {
      if (this.#learnScheme(challenge)) return true;
      await this.#basicRefused();
      return this.#dropRefusedToken();
    }
    if (status === 401) await this.#basicRefused();
    return (status === 401 || status === 403) && this.#tryInNextRequest(challenge);
  }

  #tryInNextRequest(challenge: ChallengeHeaders): boolean {
    if (!this.#mayTryLogin) return false;
    const { upstream, known, holds } = this.#options;
    const scheme = schemeToTry(upstream, challenge);
    if (scheme === undefined) return false;
    if (scheme.kind === "basic" && holds.heldBy(this.#basicLogin) !== undefined) return false;
    known.learnTried(upstream, this.#use, scheme);
    return true;
  }

  /** The registry has accepted the login. */
  accepted(): void {
    this.#endTrial(true);
    this.#isAwaited = false;
    if (this.#hasSentBasic) this.#options.holds.accepted(this.#basicLogin);
  }

  /** The request has its response, or none is to come. */
  end(): void {
    if (this.#isAwaited) this.#options.holds.undecided(this.#basicLogin);
    this.#isAwaited = false;
  }

  get #hasSentBasic(): boolean {
    return this.#sent?.scheme.kind === "basic" && this.#authorization !== undefined;
  }

  async #learnFrom401(challenge: ChallengeHeaders): Promise<boolean> {
    if (challenge === undefined) {
      if (this.#mayTryLogin) return this.#beginTrial(challenge);
      await this.#basicRefused();
      return false;
    }
    if (this.#learnScheme(challenge)) return true;
    await this.#basicRefused();
    return this.#learnFromRefusedToken(challenge);
  }

  #learnFromRefusedToken(challenge: ChallengeHeaders): boolean {
    if (this.#sentToken === undefined) return false;
    const { isInsufficient, scopes } = readScopeChallenge(challenge, this.#scopes);
    const isNew = this.#hasNewToken || this.#tokenOutcome === "fetched";
    if (scopes !== undefined && !this.#hasMoreActions && (isInsufficient || isNew)) {
      this.#demand(scopes);
      return true;
    }
    if (this.#hasNewToken || (this.#hasMoreActions && isNew)) return false;
    this.#hasNewToken = true;
    return this.#dropRefusedToken();
  }

  async #learnFrom403(challenge: ChallengeHeaders): Promise<boolean> {
    if (this.#mayTryLogin) return this.#beginTrial(challenge);
    this.#endTrial(!this.#isMissing); // less comes of it than the 404 without it
    if (this.#sent?.scheme.kind !== "bearer") return false;
    // RFC 6750, section 3.1, has `insufficient_scope` with a 403.
    const { scopes } = readScopeChallenge(challenge, this.#scopes);
    if (scopes !== undefined && !this.#hasMoreActions) {
      this.#demand(scopes);
      return true;
    }
    if (this.#hasNewToken || this.#tokenOutcome !== "cached") return false;
    this.#hasNewToken = true;
    return this.#dropDeniedToken();
  }

  /**
   * Learns a scheme that differs from that of the request.
   * @throws UpstreamError where the challenge asks for what must not be done
   */
  #learnScheme(challenge: ChallengeHeaders): boolean {
    const { upstream, known } = this.#options;
    const scheme = chooseScheme(upstream, challenge);
    if (this.#hasNewScheme || (this.#sent && isSameScheme(this.#sent.scheme, scheme))) return false;
    this.#hasNewScheme = true;
    this.#isTrial = false;
    this.end(); // others need not wait for a login that the registry does not want
    known.learn(upstream, this.#use, scheme);
    this.#sent = { scheme, source: "repository" };
    return true;
  }

  /** The token that the next attempt has serves this request alone, so it is kept under its own scopes. */
  #demand(scopes: readonly string[]): void {
    this.#scopes = scopes;
    this.#hasMoreActions = true;
    this.#hasNewToken = false;
  }

  /** The token that the request was sent with, and what it was asked for with; undefined where there was none. */
  get #sentToken(): { readonly value: string; readonly request: TokenRequest } | undefined {
    if (this.#sent?.scheme.kind !== "bearer" || this.#authorization === undefined) return undefined;
    const value = this.#authorization.slice("Bearer ".length);
    return { value, request: this.#tokenRequest(this.#sent.scheme.server) };
  }

  /** @returns whether there was a token that is not used any more */
  #dropRefusedToken(): boolean {
    const { upstream, tokens } = this.#options;
    const sent = this.#sentToken;
    if (sent !== undefined) tokens.drop(upstream.tokenKey, sent.request, sent.value);
    return sent !== undefined;
  }

  /** @returns whether another token is to take its place */
  #dropDeniedToken(): boolean {
    const { upstream, tokens } = this.#options;
    const sent = this.#sentToken;
    return sent !== undefined && tokens.dropDenied(upstream.tokenKey, sent.request, sent.value);
  }

  /** Whether the request was sent without a login, there is one, and it was not tried here a short while ago. */
  get #mayTryLogin(): boolean {
    return (
      this.#sent?.scheme.kind === "none" &&
      this.#sent.source !== "tried" &&
      !this.#hasTriedLogin &&
      this.#options.upstream.secrets.credential !== undefined
    );
  }

  /** @returns whether the login is sent */
  #beginTrial(challenge: ChallengeHeaders): boolean {
    const offered = schemeToTry(this.#options.upstream, challenge);
    if (offered === undefined) return false;
    this.#hasTriedLogin = true;
    this.#isTrial = true;
    this.#sent = { scheme: offered, source: "tried" };
    return true;
  }

  /** @param helps whether more is answered than without the login */
  #endTrial(helps: boolean): void {
    const { upstream, known } = this.#options;
    if (!this.#isTrial || this.#sent === undefined) return;
    this.#isTrial = false;
    if (helps) known.learnTried(upstream, this.#use, this.#sent.scheme);
    else known.learnUseless(upstream, this.#use);
  }

  /**
   * The registry has answered 401, which may be about the account or about the repository.
   * @throws UpstreamError where the account is held back from now on, and no earlier response stands
   */
  async #basicRefused(): Promise<void> {
    const { upstream, known, holds, signal } = this.#options;
    if (!this.#hasSentBasic || this.#sent === undefined) return;
    this.#isAwaited = false;
    const { scheme, source } = this.#sent;
    if (source === "tried" && !this.#isTrial) known.forget(upstream, this.#use, scheme); // the next request begins without it
    this.#endTrial(false);
    const refused = holds.refused(this.#basicLogin, basicRefusal(upstream), "either");
    const held = await settledOrAborted(refused, signal);
    if (held !== undefined && !this.#isMissing) throw held;
  }
}

/** What has come of a header: its value, the error in its place, or the scheme that takes the place of its own. */
interface HeaderOutcome {
  readonly value?: string | undefined;
  readonly error?: unknown;
  readonly moved?: LoginScheme;
}

const outcomeOf = (header: Promise<string | undefined>): Promise<HeaderOutcome> =>
  header.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
