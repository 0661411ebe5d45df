import { setTimeout as sleep } from "node:timers/promises";
import { createLeafIssuer, type IssueLeaf, type KeyPair } from "../certificate-authority.ts";
import { settledOrAborted } from "../concurrency.ts";
import type { Environment, ProxySettings } from "../config/cluster-settings.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { imagesAudience } from "../connector/image-hosts.ts";
import { describeProblems } from "../connector/problem.ts";
import { connectorOfServiceHost } from "../connector/proxy-address.ts";
import { keysSecretName, openingKeys, parseProxyKeys } from "../connector/proxy-keys.ts";
import { withIdentityLogins } from "../credentials/identity-logins.ts";
import { createConnectorFinder, createConnectorIndex } from "../kube/find-connector.ts";
import { shareWait } from "../kube/lookup-cache.ts";
import { createAccessReviewer } from "../kube/may-use.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { createUpstreamSecretsReader } from "../kube/read-upstream-secrets.ts";
import { createExpiredTokenVerifier, createTokenReviewer } from "../kube/verify-token.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import { createMetrics } from "../metrics/metrics.ts";
import { startProxy } from "../proxy/proxy.ts";
import type { CertificateAddresses } from "../proxy/server/listener.ts";
import type { NearAddresses } from "../upstream/upstream-policy.ts";
import { type ClusterConnection, connectToCluster } from "./cluster.ts";
import { egressOf } from "./egress.ts";
import { serveHealth } from "./health-server.ts";
import { apiServerAudiences, createClusterIdentities } from "./identities.ts";
import { installedNames } from "./installed-names.ts";
import { apiEndpoints, interfaceAddresses, nearAddresses } from "./own-addresses.ts";
import type { ProcessLog } from "./process-log.ts";
import { createProxyObserver } from "./proxy-observer.ts";
import { clusterAddresses, servicesPath } from "./proxy-service.ts";
import type { Role } from "./role.ts";

const healthPort = 9809;
const httpPort = 8080;
const httpsPort = 8443;

/** The proxy stops once no new connection has come for so long: the cluster takes its time to send them elsewhere. */
const quietMs = 3_000;
/** The longest time that it waits for that. */
const maxDrainMs = 15_000;
/** Requests under way may take so long to end. The Pod's own grace period ends them sooner where it is shorter. */
const graceMs = 60 * 60 * 1000;

/**
 * Starts the proxy role in a cluster. It is ready once the controller has made the proxy's keys.
 * @param signal aborts the wait for the keys
 * @throws the signal's reason once it is aborted
 */
export async function startClusterProxy(
  settings: ProxySettings,
  environment: Environment,
  { log, droppedLines }: ProcessLog,
  signal: AbortSignal,
): Promise<Role> {
  const { namespace, clusterDomain, audience } = settings;
  const egress = await egressOf(settings.egress);
  const cluster = await connectToCluster(environment, log);
  const { client } = cluster;
  const now = Date.now;
  const metrics = createMetrics("proxy", droppedLines);
  const { token, access, secret, rejected } = metrics.api;
  const apiServer = cluster.watchOne(apiEndpoints.collection, apiEndpoints.name);
  const near = (): NearAddresses => nearAddresses(settings, apiServer);
  const upstreamPolicy = { rules: settings.upstreams, nearAddresses: near };
  const identities = createClusterIdentities({
    client,
    settings,
    policy: upstreamPolicy,
    egress,
    apiAudiences: await apiServerAudiences(environment),
    metrics: metrics.identities,
    log,
    onReject: () => rejected("token"),
  });
  const connectors = cluster.watchConnectors();
  connectors.onChange(({ name, namespace = "", object }) => {
    if (object !== undefined) return;
    const connector = showRef({ namespace, name });
    void metrics.proxy.forget(connector);
    void metrics.identities.forget(connector);
    identities.store.drop(connector);
  });
  const connectorsAt = createConnectorIndex(connectors);
  let notReady: string | undefined = `waiting for the Secret ${keysSecretName}`;
  const health = await serveHealth({
    port: healthPort,
    notReady: () => notReady ?? (connectors.ready ? undefined : connectors.staleReason),
    metrics: metrics.scrape,
  });
  const keys = watchProxyKeys(cluster, namespace, log);
  await settledOrAborted(keys.arrived, signal).catch(async (reason: unknown) => {
    cluster.stop();
    identities.stop();
    await health.stop();
    throw reason;
  });
  const findConnector = createConnectorFinder(connectors);
  const tokenReviews = { client, now, onLookup: token, onReject: () => rejected("token") };
  const connectorOfHost = (host: string): ConnectorRef | undefined =>
    connectorOfServiceHost(host, clusterDomain);
  const isMirror = settings.imageHosts.size > 0;
  const service = isMirror
    ? cluster.watchOne(servicesPath(namespace), installedNames.proxyService)
    : undefined;
  const ownName = `${installedNames.proxyService}.${namespace}.svc.${clusterDomain}`;
  const proxy = await startProxy({
    listen: [
      { scheme: "http", host: "::", port: httpPort },
      {
        scheme: "https",
        host: "::",
        port: httpsPort,
        certificateName: ownName,
        certificateAddresses: service && nodesAddresses(service),
      },
    ],
    findConnector,
    aroundRequest: shareWait,
    readUpstreamSecrets: withIdentityLogins(
      createUpstreamSecretsReader({
        client,
        installNamespace: namespace,
        now,
        log,
        onLookup: secret,
        onReject: () => rejected("secret"),
      }),
      identities.store,
      identities.sourceOf,
    ),
    verifyToken: createExpiredTokenVerifier({
      client,
      now,
      graceMs: settings.tokenGraceMs,
      onReject: () => rejected("token"),
      verify: createTokenReviewer({
        ...tokenReviews,
        audience,
        otherAudience: imagesAudience,
      }),
    }),
    mayUse: createAccessReviewer({
      client,
      now,
      ...settings,
      findConnector,
      onLookup: access,
      onReject: () => rejected("access"),
    }),
    connectorOfHost,
    leafIssuer: keys.leafIssuer,
    servesName: (name) => name === ownName || connectorOfHost(name) !== undefined,
    sealKeys: keys.sealKeys,
    tunnels: settings.tunnels,
    egress,
    ownAddresses: () => {
      const { node, apiServer } = near();
      return [...interfaceAddresses(), ...node, ...apiServer.map(({ address }) => address)];
    },
    upstreamPolicy,
    mirror: !isMirror
      ? undefined
      : {
          verifyImageToken: createTokenReviewer({
            ...tokenReviews,
            audience: imagesAudience,
            otherAudience: audience,
            advice: "the kubelet sends one of the Pod's ServiceAccount",
            mayBeForeign: true,
          }),
          connectorsAt,
          imageHosts: settings.imageHosts,
          withoutConnector: settings.imagesWithoutConnector,
        },
    now,
    observer: createProxyObserver(log, metrics.proxy),
    log,
  });
  notReady = undefined;
  return {
    async stop() {
      notReady = "the process is about to end";
      await drain(proxy.lastConnectionAt);
      await proxy.stop(graceMs);
      identities.stop();
      cluster.stop();
      await health.stop();
    },
  };
}

/**
 * The addresses by which container runtimes reach the proxy, who know no names of the cluster: those of the proxy's
 * Service, and the node's own where a port of the host leads to the proxy.
 */
const nodesAddresses = (service: WatchedCache<KubeObject>): CertificateAddresses => ({
  current: () => [...service.list().flatMap(clusterAddresses), "127.0.0.1", "::1"],
  onChange: (listener) => service.onChange(listener),
});

/** Waits until no new connection has come for {@link quietMs}, {@link maxDrainMs} at most. */
async function drain(lastConnectionAt: () => number): Promise<void> {
  const begin = performance.now();
  for (;;) {
    await sleep(200);
    const now = performance.now();
    if (now - Math.max(begin, lastConnectionAt()) > quietMs) return;
    if (now - begin > maxDrainMs) return;
  }
}

/** The keys that all proxies of a cluster share: its authority, and what seals upload sessions. The controller makes them. */
interface WatchedProxyKeys {
  /** Settles once there are keys. */
  readonly arrived: Promise<void>;
  /** The issuer of the current authority. @throws TypeError before there are keys */
  leafIssuer(): IssueLeaf;
  /** The first key seals, all of them open. @throws TypeError before there are keys */
  sealKeys(): readonly [Buffer, ...Buffer[]];
}

interface KeysInUse {
  readonly authority: KeyPair;
  readonly issueLeaf: IssueLeaf;
  readonly sealKeys: readonly [Buffer, ...Buffer[]];
}

/** Watches the Secret with the keys. A Secret that can't be used is logged, and the keys before stay in use. */
function watchProxyKeys(cluster: ClusterConnection, namespace: string, log: Log): WatchedProxyKeys {
  const arrived = Promise.withResolvers<void>();
  let inUse: KeysInUse | undefined;
  const secrets = cluster.watchOne(`/api/v1/namespaces/${namespace}/secrets`, keysSecretName);
  const take = async (secret: unknown): Promise<void> => {
    const keys = parseProxyKeys(secret);
    if (!keys.ok) {
      const reason = describeProblems(keys.problems);
      log("error", "the proxy's keys can't be used", { reference: keysSecretName, reason });
      return;
    }
    const { authority, sealKey } = keys.value;
    const isSame = inUse?.authority.certificate === authority.certificate;
    inUse = {
      authority,
      issueLeaf: isSame && inUse ? inUse.issueLeaf : await createLeafIssuer(authority),
      sealKeys: [sealKey, ...openingKeys(keys.value).slice(1)],
    };
    arrived.resolve();
  };
  secrets.onChange(({ object }) => {
    if (object !== undefined) {
      take(object).catch((error: unknown) =>
        log("error", "the proxy's keys can't be used", { reference: keysSecretName, error }),
      );
    }
  });
  const current = (): KeysInUse => {
    if (inUse === undefined) throw new TypeError(`the Secret ${keysSecretName} does not exist yet`);
    return inUse;
  };
  return {
    arrived: arrived.promise,
    leafIssuer: () => current().issueLeaf,
    sealKeys: () => current().sealKeys,
  };
}
