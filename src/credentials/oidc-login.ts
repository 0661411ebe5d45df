/** Makes a login of a token that the registry itself exchanges, or takes as it is. */
import type { Connector } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import type { OidcAuth, OidcExchange } from "../connector/identity-auth.ts";
import { claimsOf } from "../connector/jwt-claims.ts";
import { type AudienceRules, audienceOf } from "./audience.ts";
import { type ExchangeRequest, exchangeJson, type SendExchange } from "./exchange.ts";
import { type IdentityToken, type Login, LoginError, type RequestToken } from "./login.ts";

export interface OidcLoginOptions {
  readonly connector: Connector;
  readonly auth: OidcAuth;
  readonly audiences: AudienceRules;
  readonly requestToken: RequestToken;
  /** Sends to the registry's own host. */
  readonly send: SendExchange;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** A token that is exchanged at once: the API server issues none for less than ten minutes. */
const exchangedTokenSeconds = 600;
/** A token that is the login itself. */
const loginTokenSeconds = 3600;

/**
 * Makes a login by a connector's identity. The token goes to the registry's origin and nowhere else.
 * @throws LoginError; Unavailable where there is no token now
 */
export async function obtainOidcLogin(
  options: OidcLoginOptions,
  signal: AbortSignal,
): Promise<Login> {
  const { connector, auth, audiences, requestToken } = options;
  const { exchange } = auth;
  const audience = audienceOf(connector, auth, audiences);
  const isLogin = exchange.preset === "password" || exchange.preset === "bearer";
  const token = await requestToken(audience, isLogin ? loginTokenSeconds : exchangedTokenSeconds);
  switch (exchange.preset) {
    case "password":
      return loginWith(exchange.username, token);
    case "bearer":
      return bearerLogin(token);
    default:
      return await exchangeAtRegistry(exchange, token, options, signal);
  }
}

const loginWith = (username: string, { value, expiresAt }: IdentityToken): Login => ({
  credential: { username, password: value },
  expiresAt,
});

const bearerLogin = ({ value, expiresAt }: IdentityToken): Login => ({
  credential: { username: "", password: value, kind: "bearerToken" },
  expiresAt,
});

/** An exchange that takes a request to the registry. */
type RegistryExchange = Exclude<OidcExchange, { preset: "password" | "bearer" }>;

async function exchangeAtRegistry(
  exchange: RegistryExchange,
  token: IdentityToken,
  { connector, send, now }: OidcLoginOptions,
  signal: AbortSignal,
): Promise<Login> {
  const request = requestFor(exchange, token.value, connector.address.origin);
  const startedAt = now();
  const body = await exchangeJson(send, request, signal);
  const issued = issuedToken(body, startedAt, request.url);
  if (exchange.preset === "quay") return loginWith(exchange.robot, issued);
  const { username = exchange.preset === "jfrog" ? jfrogUser(body, issued.value) : undefined } =
    exchange;
  return username === undefined ? bearerLogin(issued) : loginWith(username, issued);
}

const jwtType = "urn:ietf:params:oauth:token-type:jwt";
const idTokenType = "urn:ietf:params:oauth:token-type:id_token";
const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";

function requestFor(exchange: RegistryExchange, token: string, origin: string): ExchangeRequest {
  const accept = "application/json";
  switch (exchange.preset) {
    case "quay": {
      // https://docs.projectquay.io/manage_quay.html#setting-robot-federation
      const login = Buffer.from(`${exchange.robot}:${token}`).toString("base64");
      return {
        method: "GET",
        url: new URL(`${origin}/oauth2/federation/robot/token`),
        headers: { accept, authorization: `Basic ${login}` },
      };
    }
    case "jfrog":
      // https://jfrog.com/help/r/jfrog-platform-administration-documentation/openid-connect-integration
      return {
        method: "POST",
        url: new URL(`${origin}/access/api/v1/oidc/token`),
        headers: { accept, "content-type": "application/json" },
        body: JSON.stringify({
          grant_type: exchangeGrant,
          subject_token_type: idTokenType,
          subject_token: token,
          provider_name: exchange.provider,
        }),
      };
    case "rfc8693":
      return {
        method: "POST",
        url: new URL(`${origin}${exchange.tokenPath}`),
        headers: { accept, "content-type": "application/x-www-form-urlencoded" },
        body: new URLSearchParams({
          grant_type: exchangeGrant,
          subject_token_type: jwtType,
          subject_token: token,
        }).toString(),
      };
  }
}

/** No registry reads a header of more than this. */
const maxTokenBytes = 64 * 1024;

function issuedToken(body: unknown, startedAt: number, url: URL): IdentityToken {
  const value = property(body, "access_token") || property(body, "token");
  if (typeof value !== "string" || !/^[\x21-\x7e]+$/.test(value) || value.length > maxTokenBytes) {
    const message = `${url.origin}${url.pathname} answered without a token that could be used`;
    throw new LoginError("ExchangeFailed", message);
  }
  const seconds = Number(property(body, "expires_in") ?? Number.NaN);
  return { value, expiresAt: seconds > 0 ? startedAt + seconds * 1000 : jwtExpiry(value) };
}

/** The end of a token that is a JWT, in milliseconds since 1970; undefined for any other. */
function jwtExpiry(token: string): number | undefined {
  const exp = claimsOf(token)?.exp;
  return typeof exp === "number" ? exp * 1000 : undefined;
}

/** The user of a platform's access token, as the response or the token's subject (`jfac@…/users/<name>`) says. */
function jfrogUser(body: unknown, token: string): string {
  const named = property(body, "username");
  if (typeof named === "string" && /^[^:\p{C}]+$/u.test(named)) return named;
  const subject = String(claimsOf(token)?.sub ?? "");
  const user = /\/users\/([^/:\p{C}]+)$/u.exec(subject)?.[1];
  if (user !== undefined) return user;
  const message =
    "the platform's answer names no user for its token: add {name: username, value: …} to spec.auth.params";
  throw new LoginError("ExchangeFailed", message);
}
