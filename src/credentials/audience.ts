import {
  type AllowedAudience,
  canonicalAudience,
  isReservedAudience,
} from "../connector/audience.ts";
import type { Connector } from "../connector/connector.ts";
import type { OidcAuth } from "../connector/identity-auth.ts";
import { LoginError } from "./login.ts";

/** For whom the tokens of connectors may be. */
export interface AudienceRules {
  /** Pairs of audience and host; `any` where whoever writes connectors is the operator. */
  readonly allowed: readonly AllowedAudience[] | "any";
  /** The audiences of the API server and of this product, which no connector gets a token for. */
  readonly own: () => readonly string[];
}

/**
 * The audience of a connector's token: the registry's origin, or the one that the connector names where the operator
 * allows that for this registry. So a token is worth nothing where it should not go.
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
  if (rules.own().some((own) => canonicalAudience(own) === canonicalAudience(audience))) {
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
