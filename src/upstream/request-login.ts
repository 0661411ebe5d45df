/** The login of one request: which Authorization it is sent with, and what a refusal changes about that. */
import { showRef } from "../connector/connector-ref.ts";
import type { KnownLogins, KnownScheme, LoginTrial } from "./known-logins.ts";
import {
  type ChallengeHeaders,
  chooseScheme,
  isSameScheme,
  type LoginScheme,
  offeredScheme,
  readScopeChallenge,
} from "./login-scheme.ts";
import type { TokenCache, TokenOutcome } from "./token-cache.ts";
import { basicAuthorization, type TokenRequest, type TokenServer } from "./token-client.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError } from "./upstream-error.ts";

/** What a registry has answered, as far as its login is concerned. */
export interface LoginResponse {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface RequestLoginOptions {
  readonly upstream: Upstream;
  /** What a token has to allow, as the distribution token protocol has it: `repository:app:pull`. */
  readonly scopes: readonly string[];
  readonly known: KnownLogins;
  readonly tokens: TokenCache;
  /** Is aborted when nobody waits for the request any more. */
  readonly signal: AbortSignal;
  /** Is called for each token that is needed, with the connector as `namespace/name`. */
  readonly onTokenOutcome: (connector: string, outcome: TokenOutcome) => void;
}

/** Makes the Authorization headers of one request, one for each time that it is sent. */
export class RequestLogin {
  readonly #options: RequestLoginOptions;
  /** The first scope, which tells the repository. */
  readonly #scope: string;
  #scopes: readonly string[];
  /** How the request was sent the last time. */
  #sent: KnownScheme | undefined;
  #authorization: string | undefined;
  #tokenOutcome: TokenOutcome | undefined;
  #trial: LoginTrial | undefined;
  /** Whether something else was tried already: a new scheme, a new token, more actions, another scheme by `/v2/`. */
  #hasNewScheme = false;
  #hasNewToken = false;
  #hasMoreActions = false;
  #hasAskedAgain = false;
  /** Whether the registry has answered 404 without a login. */
  #isMissing = false;

  constructor(options: RequestLoginOptions) {
    this.#options = options;
    this.#scopes = options.scopes;
    this.#scope = options.scopes[0] ?? "";
  }

  /** Whether the login is sent without a challenge, and nobody knows yet what comes of it. */
  get isTrial(): boolean {
    return this.#trial !== undefined;
  }

  /** Whether without the next Authorization the last response would stand. */
  get isOptional(): boolean {
    return this.isTrial || this.#isMissing || this.#hasMoreActions;
  }

  /**
   * Makes the next Authorization header.
   * @returns undefined where the registry wants no login, or wants Basic and the connector has no credential
   * @throws UpstreamError, or the signal's reason
   */
  async authorization(): Promise<string | undefined> {
    const { upstream, known, signal } = this.#options;
    this.#sent ??= await known.schemeFor(upstream, this.#scope, signal);
    const { scheme, source } = this.#sent;
    try {
      this.#authorization = await this.#header(scheme);
    } catch (error) {
      const mayHaveMoved = source !== "asked" && !this.#hasAskedAgain && !this.isOptional;
      if (!(error instanceof UpstreamError) || !mayHaveMoved) throw error;
      this.#hasAskedAgain = true;
      const now = await known.askAgain(upstream, signal);
      if (now === undefined || isSameScheme(now, scheme)) throw error;
      if (source === "repository" && isRefusal(error) && hasSameRealm(now, scheme)) throw error;
      known.forget(upstream, this.#scope, scheme);
      this.#sent = { scheme: now, source: "registry" };
      this.#authorization = await this.#header(now);
    }
    return this.#authorization;
  }

  /** @throws UpstreamError where there is no token */
  async #header(scheme: LoginScheme): Promise<string | undefined> {
    const { upstream, tokens, onTokenOutcome, signal } = this.#options;
    const { credential } = upstream.secrets;
    this.#tokenOutcome = undefined;
    if (scheme.kind === "none") return undefined;
    if (scheme.kind === "basic") return credential && basicAuthorization(credential);
    const onOutcome = (outcome: TokenOutcome): void => {
      this.#tokenOutcome = outcome;
      onTokenOutcome(showRef(upstream.connector), outcome);
    };
    const request = this.#tokenRequest(scheme.server);
    return `Bearer ${await tokens.token(upstream.tokenKey, request, onOutcome, signal)}`;
  }

  #tokenRequest(server: TokenServer): TokenRequest {
    const { secrets, send, guard } = this.#options.upstream;
    return { ...server, scopes: this.#scopes, credential: secrets.credential, send, guard };
  }

  /**
   * Learns from a response.
   * @returns whether the request is to be sent again, with another Authorization
   * @throws UpstreamError where the challenge asks for what must not be done
   */
  async learnFrom({ status, headers }: LoginResponse): Promise<boolean> {
    const challenge = headers["www-authenticate"];
    if (status === 401) return await this.#learnFrom401(challenge);
    if (status === 403) return await this.#learnFrom403(challenge);
    if (status === 404 && this.#mayTryLogin) {
      this.#isMissing = true;
      return await this.#beginTrial(challenge);
    }
    this.accepted();
    return false;
  }

  /**
   * Learns from the response to a request that can't be sent again.
   * @returns whether the client's next attempt is to have another Authorization
   * @throws UpstreamError where the challenge asks for what must not be done
   */
  learnForNextRequest({ status, headers }: LoginResponse): boolean {
    const challenge = headers["www-authenticate"];
    if (status === 403) this.#dropDeniedToken(); // the 403 is passed on all the same, since most denials are meant
    if (status === 401 && challenge !== undefined && this.#learnScheme(challenge)) return true;
    if (status === 401) this.#loginRefused();
    if (status === 401 && challenge !== undefined) return this.#dropRefusedToken();
    if ((status !== 401 && status !== 403) || !this.#mayTryLogin) return false;
    const { upstream, known } = this.#options;
    const scheme = this.#schemeToTry(challenge);
    if (scheme === undefined || !known.mayTry(upstream)) return false;
    known.learnTried(upstream, this.#scope, scheme);
    return true;
  }

  /** The registry has answered something else than a refusal. */
  accepted(): void {
    this.#trial?.end("accepted");
  }

  /** The request has its response, or none is to come. */
  end(): void {
    this.#trial?.end("unknown");
  }

  async #learnFrom401(challenge: ChallengeHeaders): Promise<boolean> {
    if (challenge === undefined) {
      if (this.#mayTryLogin) return await this.#beginTrial(challenge);
      this.#loginRefused();
      return false;
    }
    if (this.#learnScheme(challenge)) return true;
    this.#loginRefused();
    return this.#learnFromRefusedToken(challenge);
  }

  #learnFromRefusedToken(challenge: ChallengeHeaders): boolean {
    if (this.#authorization === undefined || this.#sent?.scheme.kind !== "bearer") return false;
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
    if (this.#mayTryLogin) return await this.#beginTrial(challenge);
    this.#trial?.end(this.#isMissing ? "useless" : "accepted"); // less comes of it than the 404 without it
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
    this.#trial?.end("unknown");
    this.#trial = undefined;
    known.learn(upstream, this.#scope, scheme);
    this.#sent = { scheme, source: "repository" };
    return true;
  }

  /** The token that the next attempt has serves this request alone, so it is kept under its own scopes. */
  #demand(scopes: readonly string[]): void {
    this.#scopes = scopes;
    this.#hasMoreActions = true;
    this.#hasNewToken = false;
  }

  /** @returns whether there was a token that is not used any more */
  #dropRefusedToken(): boolean {
    const { upstream, tokens } = this.#options;
    if (this.#sent?.scheme.kind !== "bearer" || this.#authorization === undefined) return false;
    const request = this.#tokenRequest(this.#sent.scheme.server);
    tokens.drop(upstream.tokenKey, request, this.#authorization.slice("Bearer ".length));
    return true;
  }

  /** @returns whether another token is to take its place */
  #dropDeniedToken(): boolean {
    const { upstream, tokens } = this.#options;
    if (this.#sent?.scheme.kind !== "bearer" || this.#authorization === undefined) return false;
    const request = this.#tokenRequest(this.#sent.scheme.server);
    const token = this.#authorization.slice("Bearer ".length);
    return tokens.dropDenied(upstream.tokenKey, request, token);
  }

  /** Whether the request was sent without a login, there is one, and it was not tried here a short while ago. */
  get #mayTryLogin(): boolean {
    return (
      this.#sent?.scheme.kind === "none" &&
      this.#sent.source !== "tried" &&
      this.#trial === undefined &&
      this.#options.upstream.secrets.credential !== undefined
    );
  }

  /** Basic, as other clients send it, unless there is a challenge; undefined where that must not be followed. */
  #schemeToTry(challenge: ChallengeHeaders): LoginScheme | undefined {
    try {
      return offeredScheme(this.#options.upstream, challenge) ?? { kind: "basic" };
    } catch (error) {
      if (error instanceof UpstreamError) return undefined;
      throw error;
    }
  }

  async #beginTrial(challenge: ChallengeHeaders): Promise<boolean> {
    const { upstream, known, signal } = this.#options;
    const offered = this.#schemeToTry(challenge);
    if (offered === undefined) return false;
    this.#trial = await known.beginTrial(upstream, this.#scope, offered, signal);
    if (this.#trial === undefined) return false;
    this.#sent = { scheme: this.#trial.scheme, source: "tried" };
    return true;
  }

  /** The registry has answered 401; the login that was sent may be one that it had not asked for. */
  #loginRefused(): void {
    const { upstream, known } = this.#options;
    if (this.#sent?.source !== "tried" || this.#sent.scheme.kind !== "basic") return;
    if (this.#trial !== undefined) this.#trial.end("refused");
    else known.forget(upstream, this.#scope, this.#sent.scheme); // the next request begins without it
  }
}

/**
 * Sends a request with the connector's login, and again where a refusal leads to a better one.
 * @param send sends it with an Authorization header
 * @returns the last response; where a login that the registry had not asked for was refused, the 404 that came without it
 * @throws UpstreamError, and what `send` throws
 */
export async function sendWithLogin<Response extends LoginResponse>(
  login: RequestLogin,
  send: (authorization: string | undefined) => Promise<Response>,
): Promise<Response> {
  try {
    const response = await send(await login.authorization());
    return await sendAgain(login, send, response);
  } finally {
    login.end();
  }
}

async function sendAgain<Response extends LoginResponse>(
  login: RequestLogin,
  send: (authorization: string | undefined) => Promise<Response>,
  first: Response,
): Promise<Response> {
  let missing: Response | undefined;
  let response = first;
  while (await login.learnFrom(response)) {
    if (response.status === 404) missing = response;
    const next = await login.authorization().catch((error: unknown) => {
      if (login.isOptional && error instanceof UpstreamError) return error;
      throw error;
    });
    if (next instanceof UpstreamError) return missing ?? response;
    response = await send(next);
  }
  const isRefused = response.status === 401 || response.status === 403;
  return isRefused ? (missing ?? response) : response;
}

const isRefusal = ({ fault }: UpstreamError): boolean =>
  fault === "AuthenticationFailed" || fault === "AccessDenied";

const hasSameRealm = (one: LoginScheme, other: LoginScheme): boolean =>
  one.kind === "bearer" &&
  other.kind === "bearer" &&
  one.server.realm.href === other.server.realm.href;
