/** For whom a connector's token may be: a token is worth nothing where it should not go. */
import type { Connector } from "../connector/connector.ts";
import type { OidcAuth } from "../connector/identity-auth.ts";
import { LoginError } from "./login.ts";

/** An audience that the operator allows, beside a registry's own origin. */
export interface AllowedAudience {
  readonly audience: string;
  /** The registry that tokens for it may go to: its host, with its port unless that is 443. */
  readonly host: string;
}

export interface AudienceRules {
  /** Pairs of audience and host; `any` where whoever writes connectors is the operator. */
  readonly allowed: readonly AllowedAudience[] | "any";
  /** The audiences of the API server and of this product, which no connector gets a token for. */
  readonly own: () => readonly string[];
}

/** The clouds' exchanges: a token for one of them is a login at that cloud. */
const cloudAudiences: readonly RegExp[] = [
  /^sts(\.[a-z0-9.-]+)?\.amazonaws\.com(\.cn)?$/,
  /^api:\/\/azureadtokenexchange/,
  /^(https:)?\/\/(iam|sts|iamcredentials)\.googleapis\.com(\/|$)/,
  /\.svc\.id\.goog$/,
  /^https:\/\/(sts\.[a-z0-9.-]*amazonaws\.com(\.cn)?|sts\.amazonaws\.com|login\.microsoftonline\.[a-z]+|login\.chinacloudapi\.cn)(\/|$)/,
];

/** The names of the API server in every cluster. */
const apiServer = /^(https:\/\/)?kubernetes(\.default(\.svc(\.[a-z0-9.-]+)?)?)?(:\d+)?$/;

/** One spelling for comparisons. */
const canonical = (audience: string): string => audience.toLowerCase().replace(/\/+$/, "");

/** Whether a token for this audience is a login at a cloud, or at an API server by its usual name. */
export const isReservedAudience = (audience: string): boolean =>
  apiServer.test(canonical(audience)) ||
  cloudAudiences.some((pattern) => pattern.test(canonical(audience)));

/**
 * The audience of a connector's token: the registry's origin, or the one that the connector names where the operator
 * allows that for this registry.
 * @throws LoginError AudienceRefused
 */
export function audienceOf({ address }: Connector, auth: OidcAuth, rules: AudienceRules): string {
  const { audience = address.origin } = auth;
  const refuse = (wanted: string): LoginError =>
    new LoginError(
      "AudienceRefused",
      `spec.auth: found the audience ${audience}, wanted ${wanted}`,
    );
  if (isReservedAudience(audience)) {
    throw refuse(
      "another one: a token for it is a login at a cloud or at the cluster's API server, and is sent to no registry",
    );
  }
  if (rules.own().some((own) => canonical(own) === canonical(audience))) {
    throw refuse("another one: the cluster's API server, or this product, takes tokens for it");
  }
  const isAllowed =
    audience === address.origin ||
    rules.allowed === "any" ||
    rules.allowed.some((pair) => pair.audience === audience && pair.host === address.imageHost);
  if (isAllowed) return audience;
  throw refuse(
    `the registry's origin, ${address.origin} (leave the parameter out), ` +
      `or one that the cluster's operator allows by OIDC_AUDIENCES=${audience}=${address.imageHost} (daemonset/settings.env)`,
  );
}
