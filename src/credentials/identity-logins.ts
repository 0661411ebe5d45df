/** The logins of connectors that log in with an identity: whose token, which exchange, and the store that keeps them. */
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import {
  type ExecAuth,
  type IdentityAuth,
  identityName,
  type OidcAuth,
} from "../connector/identity-auth.ts";
import {
  type ReadUpstreamSecrets,
  type ServiceAccountRef,
  type ServiceAccountTokens,
  Unavailable,
  type UpstreamSecrets,
} from "../connector/platform.ts";
import { type AudienceRules, audienceOf } from "./audience.ts";
import type { SendExchange } from "./exchange.ts";
import { type Login, LoginError, type RequestToken } from "./login.ts";
import type { CheckedIdentity, LoginSource, LoginStore } from "./login-store.ts";
import { obtainOidcLogin } from "./oidc-login.ts";
import { checkAccount, type OwnAccounts, tokensOf } from "./service-account.ts";

/** Where identities come from: each is undefined where the platform has none of the kind. */
export interface IdentityPlatform {
  readonly accounts?: { readonly tokens: ServiceAccountTokens; readonly own: OwnAccounts };
  /** Reads a token of a file. @throws LoginError */
  readonly readTokenFile?: (name: string) => RequestToken;
  /** Runs a credential helper for a registry. @throws LoginError */
  readonly runHelper?: (
    auth: ExecAuth,
    connector: Connector,
    signal: AbortSignal,
  ) => Promise<Login>;
}

export interface LoginSourcesOptions extends IdentityPlatform {
  readonly audiences: AudienceRules;
  /** Makes what sends an exchange to a connector's own registry. */
  readonly sendFor: (connector: Connector, secrets: UpstreamSecrets) => SendExchange;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/**
 * Makes the source of a connector's login.
 * @param secrets the certificates that the connector trusts
 */
export type LoginSourceOf = (
  connector: Connector,
  auth: IdentityAuth,
  secrets: UpstreamSecrets,
) => LoginSource;

/** Makes the function that knows where the login of each connector comes from. */
export function createLoginSources(options: LoginSourcesOptions): LoginSourceOf {
  return (connector, auth, secrets) => {
    const { address, namespace } = connector;
    return {
      key: connector.uid,
      connector: showRef(connector),
      owner: namespace,
      method: auth.method,
      identity: identityName(connector, auth),
      version: JSON.stringify([auth, address.origin, address.basePath]),
      check:
        auth.method === "execAuth"
          ? async () => helperIdentity(connector, auth, options)
          : () => oidcIdentity(connector, auth, secrets, options),
    };
  };
}

function helperIdentity(
  connector: Connector,
  auth: ExecAuth,
  { runHelper }: IdentityPlatform,
): CheckedIdentity {
  if (runHelper === undefined) throw notHere(auth);
  return { version: "", obtain: (signal) => runHelper(auth, connector, signal) };
}

async function oidcIdentity(
  connector: Connector,
  auth: OidcAuth,
  secrets: UpstreamSecrets,
  options: LoginSourcesOptions,
): Promise<CheckedIdentity> {
  const { accounts, readTokenFile, sendFor } = options;
  const identity = (version: string, requestToken: RequestToken): CheckedIdentity => ({
    version,
    obtain: (signal) =>
      obtainOidcLogin(
        { ...options, connector, auth, requestToken, send: sendFor(connector, secrets) },
        signal,
      ),
  });
  const { source } = auth;
  if (source.kind === "tokenFile") {
    if (readTokenFile === undefined) throw notHere(auth);
    return identity("", readTokenFile(source.name));
  }
  if (accounts === undefined) throw notHere(auth);
  const { tokens, own } = accounts;
  audienceOf(connector, auth, options.audiences); // before anybody is asked for anything
  const ref: ServiceAccountRef = { namespace: connector.namespace, name: source.name };
  const account = await checkAccount(ref, tokens, own);
  return identity(account.uid, tokensOf(account, tokens, own));
}

/** An identity of another platform, which the parser refuses already. */
const notHere = ({ method }: IdentityAuth): LoginError =>
  new LoginError("TokenInvalid", `this process has no identities for ${method}`);

/**
 * Adds the logins of identities to what is read of connectors' Secrets.
 * @param read reads the Secrets of a connector
 */
export const withIdentityLogins =
  (read: ReadUpstreamSecrets, store: LoginStore, sourceOf: LoginSourceOf): ReadUpstreamSecrets =>
  async (connector, options) => {
    const secrets = await read(connector, options);
    const { identity } = connector;
    if (!secrets.ok || identity === undefined) return secrets;
    try {
      const source = sourceOf(connector, identity, secrets.value);
      const { credential } = await store.use(source, { isRefused: options?.fresh === true });
      return { ok: true, value: { ...secrets.value, credential } };
    } catch (error) {
      if (!(error instanceof LoginError)) throw error;
      const { message, isTransient } = error;
      if (isTransient) throw new Unavailable(message, { cause: error });
      return { ok: false, reason: message };
    }
  };
