import type { AllowedAudience } from "../../src/connector/audience.ts";
import type { Connector } from "../../src/connector/connector.ts";
import { showRef } from "../../src/connector/connector-ref.ts";
import { createLoginSources, withIdentityLogins } from "../../src/credentials/identity-logins.ts";
import { type LoginOutcome, LoginStore } from "../../src/credentials/login-store.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
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

/** A proxy whose connectors log in with ServiceAccounts of a fake API server. */
export interface IdentityProxy extends Stoppable {
  readonly proxy: TestProxy;
  readonly issuer: Issuer;
  readonly server: FakeApiServer;
  readonly accounts: FakeTokenRequests;
  readonly store: LoginStore;
  /** What came of each attempt to get a login. */
  readonly outcomes: LoginOutcome[];
  /** Milliseconds that its clock is ahead of the real one. */
  aheadMs: number;
  /** Adds a connector of the namespace team-a with an identity. */
  connect(name: string, address: string, auth: object, certificates?: readonly string[]): Connector;
}

export interface IdentityProxyOptions {
  readonly allowedAudiences?: readonly AllowedAudience[];
  readonly random?: () => number;
}

export async function startIdentityProxy({
  allowedAudiences = [],
  random = Math.random,
}: IdentityProxyOptions = {}): Promise<IdentityProxy> {
  const server = await startFakeApiServer();
  const issuer = await startIssuer();
  const accounts = addTokenRequests(server, issuer);
  accounts.addAccount("puller");
  const upstreams = createUpstreams(15_000);
  const outcomes: LoginOutcome[] = [];
  const clock = { aheadMs: 0 };
  const now = (): number => Date.now() + clock.aheadMs;
  const store = new LoginStore({ now, random, onOutcome: (outcome) => outcomes.push(outcome) });
  const client = createApiClient({ access: server.access, timeoutMs: 2_000 });
  const sources = createLoginSources({
    accounts: { tokens: createServiceAccountTokens({ client }), own: ownAccounts },
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
    issuer,
    server,
    accounts,
    store,
    outcomes,
    connect(
      name: string,
      address: string,
      auth: object,
      certificates: readonly string[] = [],
    ): Connector {
      const connector = testConnector(name, address, [], auth);
      proxy.surroundings.connectors.set(showRef(connector), connector);
      authorities.set(name, certificates);
      return connector;
    },
    async stop() {
      store.stop();
      upstreams.destroy();
      await Promise.all([proxy.stop(), server.stop(), issuer.stop()]);
    },
  });
}

/** `spec.auth` with the ServiceAccount puller. */
export const oidcAuth = (params: Readonly<Record<string, string>>, account = "puller"): object => ({
  name: "oidcAuth",
  serviceAccountRef: { name: account },
  params: Object.entries(params).map(([name, value]) => ({ name, value })),
});
