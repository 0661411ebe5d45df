import { randomBytes } from "node:crypto";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { serviceHosts } from "../connector/proxy-address.ts";
import type { ProxyKeys } from "../connector/proxy-keys.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { CacheTiming } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import type { Probe } from "../upstream/probe.ts";
import { timestamp } from "./conditions.ts";
import { createConnectorSecretsReader } from "./connector-secrets.ts";
import { createServiceEnsurer } from "./connector-service.ts";
import { createPrerequisitesEnsurer } from "./ensure-prerequisites.ts";
import { createEventRecorder } from "./event-recorder.ts";
import type { IdentityLogins } from "./identity-login.ts";
import { createProxyAccessGranter, type GrantProxyAccess } from "./proxy-access.ts";
import { createProxyKeysKeeper } from "./proxy-keys-keeper.ts";
import {
  type ConnectorReconciler,
  createConnectorReconciler,
  type ReconcileConnector,
  type ReconcileOptions,
  type ReconcileResult,
} from "./reconcile-connector.ts";
import { defaultReconcileTiming, type ReconcileTiming } from "./reconcile-schedule.ts";
import { defaultRotationTiming, type RotationTiming } from "./rotation-plan.ts";
import { createSharedCasKeeper } from "./shared-cas-keeper.ts";
import { connectTriggers, startWatches, type Watches } from "./watches.ts";
import { type Clock, createWorkQueue } from "./work-queue.ts";

/** The names of an installation that the controller depends on. */
export interface ControllerNames {
  /** The namespace of the installation. */
  readonly installNamespace: string;
  /** The DNS domain of the cluster: `cluster.local`. */
  readonly clusterDomain: string;
  /** The proxy's Service, in the install namespace. */
  readonly proxyService: string;
  /** The proxy's ServiceAccount, in the install namespace. */
  readonly proxyServiceAccount: string;
  /** The controller's own ServiceAccount, in the install namespace. */
  readonly controllerServiceAccount: string;
  /** The ClusterRole with `get secrets`: bound to the controller everywhere, or namespace by namespace. */
  readonly secretReaderClusterRole: string;
}

/** What a reconciliation of a Connector has come to, for metrics. */
export interface ReconcileReport {
  /** The Connector: `namespace/name`. */
  readonly connector: string;
  readonly outcome: ReconcileResult["outcome"] | "error";
  readonly durationMs: number;
  /** The conditions as they are now, type → status; undefined where they are not known. */
  readonly conditions: ReadonlyMap<string, string> | undefined;
}

/** What the controller needs. */
export interface ControllerOptions {
  readonly client: ApiClient;
  readonly probe: Probe;
  readonly identityLogins: IdentityLogins;
  readonly names: ControllerNames;
  /** The name of this replica's Pod. */
  readonly instance: string;
  readonly clock: Clock;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
  readonly log: Log;
  /** Is called after each reconciliation of a Connector. */
  readonly onReconcile?: (report: ReconcileReport) => void;
  readonly timing?: Partial<ReconcileTiming & RotationTiming>;
  readonly cacheTiming?: Partial<CacheTiming>;
}

/** A controller that runs. */
export interface Controller {
  /** Whether all watches have their first list; it stays true from then on. */
  ready(): boolean;
  /** Begins nothing new and waits for reconciliations under way. Nothing has to be cleaned up. */
  stop(): Promise<void>;
}

/** How many reconciliations run at once. Namespaces take turns. */
const concurrency = 16;
/** How many registries are probed at once. One that never answers takes a place for the length of a probe. */
const probeConcurrency = 32;
/** How many of them are those of one namespace. */
const probesPerNamespace = 2;
const retry = { initialMs: 250, maxMs: 2 * 60_000 };

/**
 * Starts a controller, which makes the cluster what its Connectors ask for until it is stopped. Several replicas may
 * run at once, without a leader.
 */
export function startController(options: ControllerOptions): Controller {
  const { client, names, clock, random, log } = options;
  const { installNamespace } = names;
  const abort = new AbortController();
  const { signal } = abort;
  const timing = options.cacheTiming;
  const watches = startWatches({ client, installNamespace, log, signal, random, timing });
  const caches = Object.values(watches) as Watches[keyof Watches][];

  const grantProxyAccess = createProxyAccessGranter({
    client,
    ...watches,
    proxy: { namespace: installNamespace, name: names.proxyServiceAccount },
  });
  const requestProbe = (ref: ConnectorRef): void => probes.add(showRef(ref));
  const reconciler = createReconciler(options, watches, {
    grantProxyAccess,
    signal,
    requestProbe,
  });
  const keepProxyKeys = createProxyKeysKeeper({
    client,
    installNamespace,
    now: clock.now,
    log,
    secrets: watches.proxyKeys,
    configMaps: watches.proxyCa,
    createKeys: () => createKeys(clock.now()),
    timing: { ...defaultRotationTiming, ...options.timing },
  });

  const keepSharedCas = createSharedCasKeeper({
    client,
    installNamespace,
    secrets: watches.sharedCas,
    configMaps: watches.sharedCaBundle,
    log,
  });

  const tasks: Readonly<Record<string, (rest: string) => Promise<number | undefined>>> = {
    connector: async (rest) =>
      (await withReport(reconciler.reconcile, options)(parseRef(rest))).requeueAfterMs,
    async namespace(namespace) {
      const access = await grantProxyAccess(namespace);
      if (!access.ok)
        log("warning", "the proxy can't be given access to a namespace's Secrets", {
          reason: access.reason,
        });
      return undefined;
    },
  };
  const onError = (key: string, error: unknown): void => {
    // On a conflict somebody else was faster, and the watch will show their change.
    if (!hasStatus(error, 409))
      log("warning", "reconciliation failed, retrying", { reference: key, error });
  };
  const shared = { retry, clock, random, onError };
  const queue = createWorkQueue({
    ...shared,
    concurrency,
    groupOf: (key) => parseRef(key.split(" ")[1] ?? "").namespace,
    async run(key) {
      const [task = "", rest = ""] = key.split(" ");
      return tasks[task]?.(rest);
    },
  });
  const installQueue = createWorkQueue({
    ...shared,
    concurrency: 2,
    run: (key) => (key === "sharedCas" ? keepSharedCas() : keepProxyKeys()),
  });
  const probes = createWorkQueue({
    ...shared,
    concurrency: probeConcurrency,
    groupConcurrency: probesPerNamespace,
    groupOf: (key) => parseRef(key).namespace,
    isUrgent: (key) => reconciler.isUnprobed(parseRef(key)),
    async run(key) {
      await reconciler.probe(parseRef(key));
      queue.add(`connector ${key}`);
      return undefined;
    },
  });
  void Promise.all(caches.map(({ synced }) => synced)).then(() => {
    const triggers = {
      connector: (ref: ConnectorRef, delayMs?: number) =>
        queue.add(`connector ${showRef(ref)}`, delayMs),
      namespace: (name: string) => queue.add(`namespace ${name}`),
      proxyKeys: () => installQueue.add("proxyKeys"),
      sharedCas: () => installQueue.add("sharedCas"),
    };
    if (!signal.aborted) connectTriggers(watches, triggers, random);
  });
  return {
    ready: () => caches.every((cache) => cache.ready),
    async stop() {
      abort.abort();
      await Promise.all([queue, installQueue, probes].map((one) => one.stop()));
    },
  };
}

/** Creates the function that reconciles one Connector, of all its parts. */
function createReconciler(
  options: ControllerOptions,
  watches: Watches,
  parts: Pick<ReconcileOptions, "signal" | "requestProbe"> & {
    readonly grantProxyAccess: GrantProxyAccess;
  },
): ConnectorReconciler {
  const { client, clock, names, instance, log } = options;
  const { proxyService, installNamespace, clusterDomain } = names;
  const target = `${proxyService}.${installNamespace}.svc.${clusterDomain}`;
  const ensurePrerequisites = createPrerequisitesEnsurer({
    ensureService: createServiceEnsurer({ client, services: watches.services, target }),
    readSecrets: createConnectorSecretsReader({
      client,
      sharedCas: () => watches.sharedCas.list(),
      permissionCommand: (namespace) => permissionCommand(namespace, names),
      identityLogins: options.identityLogins,
    }),
    grantProxyAccess: parts.grantProxyAccess,
  });
  return createConnectorReconciler({
    ...options,
    ...parts,
    now: clock.now,
    ensurePrerequisites,
    connectors: watches.connectors,
    recordEvent: createEventRecorder({ client, now: clock.now, instance, log }),
    proxyHostsOf: serviceHosts(clusterDomain),
    timing: { ...defaultReconcileTiming, ...options.timing },
  });
}

/** The command that gives the controller the right to read the Secrets of one namespace. */
const permissionCommand = (namespace: string, names: ControllerNames): string =>
  `kubectl create rolebinding connectors-secret-reader -n ${namespace} ` +
  `--clusterrole=${names.secretReaderClusterRole} ` +
  `--serviceaccount=${names.installNamespace}:${names.controllerServiceAccount}`;

/** Reports what each reconciliation has come to. */
const withReport =
  (reconcile: ReconcileConnector, { onReconcile }: ControllerOptions): ReconcileConnector =>
  async (ref) => {
    const startedAt = performance.now();
    let result: ReconcileResult | undefined;
    try {
      result = await reconcile(ref);
      return result;
    } finally {
      const { outcome = "error", conditions } = result ?? {};
      const durationMs = performance.now() - startedAt;
      onReconcile?.({ connector: showRef(ref), outcome, durationMs, conditions });
    }
  };

/** The connector of a key, the reverse of `showRef`: names are DNS labels, without a slash. */
function parseRef(text: string): ConnectorRef {
  const [namespace = "", name = ""] = text.split("/");
  return { namespace, name };
}

/**
 * Creates keys for the proxies. The old and the new authority differ in their names too, since some clients find an
 * issuer by its name alone. The library for certificates takes 20 MiB and is needed once in years, so it is loaded
 * here.
 * @param now in milliseconds since 1970
 */
async function createKeys(now: number): Promise<Pick<ProxyKeys, "authority" | "sealKey">> {
  const { createAuthority } = await import("../certificate-authority.ts");
  const authority = await createAuthority(`oci-connector ${timestamp(now)}`, new Date(now));
  return { authority, sealKey: randomBytes(32) };
}
