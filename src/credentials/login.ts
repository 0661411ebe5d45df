/** What a source of logins gives, and why it gives none. */
import type { Credential } from "../connector/credential.ts";

/** A login that lives for a while. */
export interface Login {
  readonly credential: Credential;
  /** When it ends, in milliseconds since 1970, by the clock of whoever gave it; undefined where nobody says. */
  readonly expiresAt: number | undefined;
}

/**
 * Why an identity gives no login.
 * - TokenForbidden: the team has not allowed this product to use its ServiceAccount, or has taken that back
 * - ServiceAccountNotFound: there is no such ServiceAccount
 * - AudienceRefused: a token for this audience is worth something elsewhere, and nobody has allowed that
 * - TokenInvalid: there is a token, and it is not what it should be
 * - ExchangeFailed: whoever should exchange the token refuses that, or can't be reached
 * - HelperFailed: the credential helper gives no login
 */
export type LoginFault =
  | "TokenForbidden"
  | "ServiceAccountNotFound"
  | "AudienceRefused"
  | "TokenInvalid"
  | "ExchangeFailed"
  | "HelperFailed";

export interface LoginErrorOptions extends ErrorOptions {
  /** Whether it may pass by itself in a short time. */
  readonly isTransient?: boolean;
  /** How long whoever refused asks to be left alone. */
  readonly retryAfterMs?: number | undefined;
}

/** An identity gives no login. The message is fit for clients and for a connector's status, and never has a token in it. */
export class LoginError extends Error {
  override readonly name = "LoginError";
  readonly fault: LoginFault;
  /** Whether it may pass by itself in a short time. */
  readonly isTransient: boolean;
  /** How long whoever refused asks to be left alone; undefined where it does not say. */
  readonly retryAfterMs: number | undefined;

  constructor(
    fault: LoginFault,
    message: string,
    { isTransient = false, retryAfterMs, ...options }: LoginErrorOptions = {},
  ) {
    super(message, options);
    this.fault = fault;
    this.isTransient = isTransient;
    this.retryAfterMs = retryAfterMs;
  }
}

/** A token (JWT) of an identity. */
export interface IdentityToken {
  readonly value: string;
  /** In milliseconds since 1970; undefined where it does not say. */
  readonly expiresAt: number | undefined;
}

/**
 * Gets a token of an identity.
 * @param audience for whom it is: exactly one
 * @param lifetimeSeconds for how long it should live; whoever issues it may decide otherwise
 * @throws LoginError; Unavailable where nobody can say now
 */
export type RequestToken = (audience: string, lifetimeSeconds: number) => Promise<IdentityToken>;
