import type { AllowedAudience } from "../../src/connector/audience.ts";
import type { Connector } from "../../src/connector/connector.ts";
import { createLoginSources, withIdentityLogins } from "../../src/credentials/identity-logins.ts";
import { type LoginOutcome, LoginStore } from "../../src/credentials/login-store.ts";
import type { OwnAccounts } from "../../src/credentials/service-account.ts";
import { type ApiClient, createApiClient } from "../../src/kube/api-client.ts";
import { createServiceAccountTokens } from "../../src/kube/service-account-token.ts";
import { createExchangeClient } from "../../src/upstream/exchange-client.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { startTestProxy, type TestProxy, testConnector } from "../proxy/test-proxy.ts";
import type { Stoppable } from "../support/cleanup.ts";
import {
  addTokenRequests,
  type FakeTokenRequests,
} from "../support/identities/fake-token-requests.ts";
import { type Issuer, startIssuer } from "../support/identities/issuer.ts";

/** The accounts that the team's Role names, as an installation has them. */
export const ownAccounts = [
  { namespace: "connectors-system", name: "connectors-node" },
  { namespace: "connectors-system", name: "connectors-controller" },
] as const;

/** A proxy whose connectors log in with ServiceAccounts. */
export interface AccountProxy extends Stoppable {
  readonly proxy: TestProxy;
  readonly store: LoginStore;
  /** What came of each attempt to get a login. */
  readonly outcomes: LoginOutcome[];
  /** Milliseconds that its clock is ahead of the real one. */
  aheadMs: number;
  /**
   * Adds a connector with an identity. Clients know it as one of the namespace team-a.
   * @param namespace that of its ServiceAccount
   */
  connect(
    name: string,
    address: string,
    auth: object,
    certificates?: readonly string[],
    namespace?: string,
  ): Connector;
}

/** The same, of a fake API server. */
export interface IdentityProxy extends AccountProxy {
  readonly issuer: Issuer;
  readonly server: FakeApiServer;
  readonly accounts: FakeTokenRequests;
}

export interface IdentityProxyOptions {
  readonly allowedAudiences?: readonly AllowedAudience[];
  readonly random?: () => number;
}

export interface AccountProxyOptions extends IdentityProxyOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly own: OwnAccounts;
}

/** Starts a proxy over an API server that a client is of. */
export async function startAccountProxy({
  client,
  own,
  allowedAudiences = [],
  random = Math.random,
}: AccountProxyOptions): Promise<AccountProxy> {
  const upstreams = createUpstreams(15_000);
  const outcomes: LoginOutcome[] = [];
  const clock = { aheadMs: 0 };
  const now = (): number => Date.now() + clock.aheadMs;
  const store = new LoginStore({ now, random, onOutcome: (outcome) => outcomes.push(outcome) });
  const sources = createLoginSources({
    accounts: { tokens: createServiceAccountTokens({ client }), own },
    audiences: { allowed: allowedAudiences, own: () => ["connectors-proxy", "https://api.test"] },
    sendFor: (connector, secrets) => createExchangeClient(upstreams, connector, secrets),
    now,
  });
  const authorities = new Map<string, readonly string[]>();
  const readSecrets = withIdentityLogins(
    async ({ name }) => ({
      ok: true,
      value: { credential: undefined, caCertificates: authorities.get(name) ?? [] },
    }),
    store,
    sources,
  );
  const proxy = await startTestProxy({ readUpstreamSecrets: readSecrets, now });
  return Object.assign(clock, {
    proxy,
    store,
    outcomes,
    connect(
      name: string,
      address: string,
      auth: object,
      certificates: readonly string[] = [],
      namespace = "team-a",
    ): Connector {
      const connector = { ...testConnector(name, address, [], auth), namespace };
      proxy.surroundings.connectors.set(`team-a/${name}`, connector);
      authorities.set(name, certificates);
      return connector;
    },
    async stop() {
      store.stop();
      upstreams.destroy();
      await proxy.stop();
    },
  });
}

/** Starts a proxy over a fake API server, whose ServiceAccount puller may be used. */
export async function startIdentityProxy(
  options: IdentityProxyOptions = {},
): Promise<IdentityProxy> {
  const server = await startFakeApiServer();
  const issuer = await startIssuer();
  const accounts = addTokenRequests(server, issuer);
  accounts.addAccount("puller");
  const client = createApiClient({ access: server.access, timeoutMs: 2_000 });
  const fixture = await startAccountProxy({ ...options, client, own: ownAccounts });
  const { stop } = fixture;
  return Object.assign(fixture, {
    server,
    issuer,
    accounts,
    async stop() {
      await Promise.all([stop(), server.stop(), issuer.stop()]);
    },
  });
}

/** `spec.auth` with the ServiceAccount puller. */
export const oidcAuth = (params: Readonly<Record<string, string>>, account = "puller"): object => ({
  name: "oidcAuth",
  serviceAccountRef: { name: account },
  params: Object.entries(params).map(([name, value]) => ({ name, value })),
});
