/** What logins with identities are made of in a cluster: the API server's tokens, and a store that reports what it does. */
import { hash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ClusterSettings, Environment, UpstreamSettings } from "../config/cluster-settings.ts";
import type { StandaloneSettings } from "../config/command.ts";
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { imagesAudience } from "../connector/image-hosts.ts";
import { claimsOf } from "../connector/jwt-claims.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { IdentityLogins, IdentityRefusal } from "../controller/identity-login.ts";
import { createHelperRunner } from "../credentials/credential-helper.ts";
import { createLoginSources, type LoginSourceOf } from "../credentials/identity-logins.ts";
import { LoginError } from "../credentials/login.ts";
import { type LoginOutcome, type LoginSource, LoginStore } from "../credentials/login-store.ts";
import { createTokenFileReader } from "../credentials/token-file.ts";
import { serviceAccountFolder } from "../kube/api-access.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { createServiceAccountTokens } from "../kube/service-account-token.ts";
import type { Log } from "../log.ts";
import type { IdentityMetrics } from "../metrics/metrics.ts";
import type { Egress } from "../upstream/egress.ts";
import { createExchangeClient } from "../upstream/exchange-client.ts";
import { createUpstreams, type Upstreams } from "../upstream/upstream.ts";
import type { UpstreamPolicy } from "../upstream/upstream-policy.ts";
import { installedNames } from "./installed-names.ts";

/** The logins of the connectors that log in with an identity. */
export interface Identities {
  readonly store: LoginStore;
  readonly sourceOf: LoginSourceOf;
  /** Ends the exchanges that are under way, and forgets all logins. */
  stop(): void;
}

export interface ClusterIdentitiesOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly settings: ClusterSettings & Pick<UpstreamSettings, "allowedAudiences">;
  readonly policy: UpstreamPolicy;
  /** The way out by a company's proxy, where there is one. */
  readonly egress: Egress | undefined;
  /** The audiences of the API server: {@link apiServerAudiences}. */
  readonly apiAudiences: readonly string[];
  readonly metrics: IdentityMetrics;
  readonly log: Log;
  /** Is called for each request for a token that is not sent, since too many others wait. */
  readonly onReject?: () => void;
}

/** An exchange fails after so long without a byte. */
const exchangeTimeoutMs = 15_000;

/** Creates what makes the logins of identities in a cluster. */
export function createClusterIdentities(options: ClusterIdentitiesOptions): Identities {
  const { client, settings, policy, egress, apiAudiences, metrics, log, onReject } = options;
  const { namespace, audience, allowedAudiences } = settings;
  const upstreams = createUpstreams(exchangeTimeoutMs, {
    headersTimeoutMs: exchangeTimeoutMs,
    policy,
    egress,
  });
  const store = new LoginStore({
    now: Date.now,
    random: Math.random,
    onOutcome: createLoginObserver(log, metrics),
  });
  metrics.readAtScrape(() => store.logins());
  const { proxyServiceAccount, controllerServiceAccount } = installedNames;
  const sourceOf = createLoginSources({
    accounts: {
      tokens: createServiceAccountTokens({ client, onReject }),
      own: [proxyServiceAccount, controllerServiceAccount].map((name) => ({ namespace, name })),
    },
    audiences: {
      allowed: allowedAudiences,
      own: () => [audience, imagesAudience, ...apiAudiences],
    },
    sendFor: (connector, secrets) => createExchangeClient(upstreams, connector, secrets),
    now: Date.now,
  });
  return { store, sourceOf, stop: () => stopAll(store, upstreams) };
}

/** Creates what makes the logins of identities on a machine without Kubernetes. */
export function createMachineIdentities(
  { tokenFiles, credentialHelpers }: Pick<StandaloneSettings, "tokenFiles" | "credentialHelpers">,
  egress: Egress | undefined,
  log: Log,
): Identities {
  const upstreams = createUpstreams(exchangeTimeoutMs, {
    headersTimeoutMs: exchangeTimeoutMs,
    egress,
  });
  const store = new LoginStore({
    now: Date.now,
    random: Math.random,
    onOutcome: createLoginObserver(log),
  });
  const { PATH, HOME } = process.env;
  const sourceOf = createLoginSources({
    readTokenFile: createTokenFileReader({ folder: tokenFiles, now: Date.now }),
    runHelper: createHelperRunner({ folder: credentialHelpers, environment: { PATH, HOME } }),
    audiences: { allowed: "any", own: () => [] },
    sendFor: (connector, secrets) => createExchangeClient(upstreams, connector, secrets),
    now: Date.now,
  });
  return { store, sourceOf, stop: () => stopAll(store, upstreams) };
}

function stopAll(store: LoginStore, upstreams: Upstreams): void {
  store.stop();
  upstreams.destroy();
}

/** The logins of identities as the controller needs them: a probe is no use of a login. */
export const identityLoginsOf = ({
  store,
  sourceOf,
}: Pick<Identities, "store" | "sourceOf">): IdentityLogins => {
  const orRefusal = async <T>(
    connector: Connector,
    action: () => Promise<T>,
  ): Promise<T | IdentityRefusal> => {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof LoginError)) throw error;
      if (error.fault !== "ExchangeFailed") store.drop(showRef(connector));
      return { ok: false, reason: error.fault, message: error.message };
    }
  };
  const source = (connector: Connector, secrets: UpstreamSecrets): LoginSource => {
    if (connector.identity === undefined) throw new TypeError("the connector has no identity");
    return sourceOf(connector, connector.identity, secrets);
  };
  return {
    check: (connector, secrets) =>
      orRefusal(connector, async () => {
        const { version } = await source(connector, secrets).check();
        return { ok: true, version: hash("sha256", version, "base64url").slice(0, 16) } as const;
      }),
    current: (connector, secrets) => store.peek(source(connector, secrets)),
    obtain: (connector, secrets) =>
      orRefusal(connector, async () => {
        store.drop(showRef(connector)); // it may be of another identity
        const login = await store.use(source(connector, secrets));
        return { ok: true, login } as const;
      }),
  };
};

/** Writes a line for each login that was made of an identity, or was not, and counts it. */
export const createLoginObserver =
  (log: Log, metrics?: IdentityMetrics) =>
  ({ connector, method, identity, durationMs, error }: LoginOutcome): void => {
    metrics?.attempted(connector, method, error === undefined ? "obtained" : "failed");
    const fields = { connector, reference: `${method} of ${identity}`, durationMs };
    if (error === undefined) log("info", "a login was obtained with an identity", fields);
    else log("warning", "no login could be obtained with an identity", { ...fields, error });
  };

/**
 * The audiences of the API server, as this Pod's own token says them, and the issuer, which is one by default. Outside of
 * a cluster nobody knows them.
 */
export async function apiServerAudiences(environment: Environment): Promise<readonly string[]> {
  if (environment.KUBERNETES_SERVICE_HOST === undefined) return [];
  const token = await readFile(join(serviceAccountFolder, "token"), "utf8");
  const claims = claimsOf(token.trim());
  return [claims?.aud ?? [], claims?.iss ?? []].flat();
}
