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
import { connectorSecrets } from "./connector-secrets.ts";
import { serviceEnsurer } from "./connector-service.ts";
import { connectorExaminer } from "./ensure-prerequisites.ts";
import { eventRecorder } from "./event-recorder.ts";
import { proxyAccess } from "./proxy-access.ts";
import { proxyKeysKeeper } from "./proxy-keys-keeper.ts";
import {
  connectorReconciler,
  type ReconcileConnector,
  type ReconcileResult,
} from "./reconcile-connector.ts";
import { defaultTiming, type ReconcileTiming } from "./reconcile-schedule.ts";
import { defaultRotationTiming, type RotationTiming } from "./rotation-plan.ts";
import { startWatches, type Watches, watchTriggers } from "./watches.ts";
import { type Clock, createWorkQueue } from "./work-queue.ts";

/** How the things around the controller are called. */
export interface ControllerNames {
  readonly installNamespace: string;
  /** `cluster.local` */
  readonly clusterDomain: string;
  /** The proxy's Service and its ServiceAccount, both in the install namespace. */
  readonly proxyService: string;
  readonly proxyServiceAccount: string;
  /** The controller's own ServiceAccount, there too. */
  readonly controllerServiceAccount: string;
  /** The ClusterRole with `get secrets`: bound to the controller everywhere, or namespace by namespace. */
  readonly secretReaderClusterRole: string;
}

export interface Reconciled {
  /** `namespace/name` */
  readonly connector: string;
  readonly outcome: ReconcileResult["outcome"] | "error";
  readonly durationMs: number;
  /** As they are now, type → status; undefined where that is not known. */
  readonly conditions: ReadonlyMap<string, string> | undefined;
}

export interface ControllerOptions {
  readonly client: ApiClient;
  readonly probe: Probe;
  readonly names: ControllerNames;
  /** Which replica this is: the name of its Pod. */
  readonly instance: string;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  readonly log: Log;
  readonly onReconcile?: (reconciled: Reconciled) => void;
  readonly timing?: Partial<ReconcileTiming & RotationTiming>;
  readonly cacheTiming?: Partial<CacheTiming>;
}

export interface Controller {
  /** Whether everything that it watches is known; it stays true from then on. */
  ready(): boolean;
  /** Begins nothing new and waits for what is under way. Nothing has to be cleaned up. */
  stop(): Promise<void>;
}

const concurrency = 16;
const retry = { initialMs: 250, maxMs: 2 * 60_000 };

/** Keeps the cluster as its Connectors want it, until it is stopped. Several may run at once. */
export function startController(options: ControllerOptions): Controller {
  const { client, names, clock, random, log } = options;
  const { installNamespace } = names;
  const abort = new AbortController();
  const { signal } = abort;
  const timing = options.cacheTiming;
  const watches = startWatches({ client, installNamespace, log, signal, random, timing });
  const caches = Object.values(watches) as Watches[keyof Watches][];

  const giveProxyAccess = proxyAccess({
    ...{ client, ...watches },
    proxy: { namespace: installNamespace, name: names.proxyServiceAccount },
  });
  const reconcile = reconciler(options, watches, giveProxyAccess, signal);
  const keepProxyKeys = proxyKeysKeeper({
    ...{ client, installNamespace, clock, log },
    ...{ secrets: watches.proxyKeys, configMaps: watches.proxyCa },
    makeKeys: () => makeKeys(clock),
    timing: { ...defaultRotationTiming, ...options.timing },
  });

  const tasks: Readonly<Record<string, (rest: string) => Promise<number | undefined>>> = {
    connector: async (rest) => (await observed(reconcile, options)(parseRef(rest))).again,
    async namespace(namespace) {
      const access = await giveProxyAccess(namespace);
      if (!access.ok)
        log("warning", "the proxy can't be given access to a namespace's Secrets", {
          reason: access.reason,
        });
      return undefined;
    },
    proxyKeys: keepProxyKeys,
  };
  const queue = createWorkQueue({
    ...{ concurrency, retry, clock, random },
    async run(key) {
      const [task = "", rest = ""] = key.split(" ");
      return tasks[task]?.(rest);
    },
    failed(key, error) {
      // Somebody else was faster, which the watch will tell.
      if (!hasStatus(error, 409))
        log("warning", "reconciliation failed, retrying", { reference: key, error });
    },
  });
  void Promise.all(caches.map(({ synced }) => synced)).then(() => {
    const triggers = {
      connector: (ref: ConnectorRef, delay?: number) =>
        queue.add(`connector ${showRef(ref)}`, delay),
      namespace: (name: string) => queue.add(`namespace ${name}`),
      proxyKeys: () => queue.add("proxyKeys"),
    };
    if (!signal.aborted) watchTriggers(watches, triggers, random);
  });
  return {
    ready: () => caches.every((cache) => cache.ready),
    async stop() {
      abort.abort();
      await queue.stop();
    },
  };
}

function reconciler(
  options: ControllerOptions,
  watches: Watches,
  giveProxyAccess: ReturnType<typeof proxyAccess>,
  signal: AbortSignal,
): ReconcileConnector {
  const { client, clock, names, instance, log } = options;
  const { proxyService, installNamespace, clusterDomain } = names;
  const target = `${proxyService}.${installNamespace}.svc.${clusterDomain}`;
  const examine = connectorExaminer({
    ensureService: serviceEnsurer({ client, services: watches.services, target }),
    readSecrets: connectorSecrets({
      client,
      sharedCas: () => watches.sharedCas.list(),
      permissionCommand: (namespace) => permissionCommand(namespace, names),
    }),
    giveProxyAccess,
  });
  return connectorReconciler({
    ...{ ...options, examine, signal, connectors: watches.connectors },
    recordEvent: eventRecorder({ client, now: clock.now, instance, log }),
    proxyHostsOf: serviceHosts(clusterDomain),
    timing: { ...defaultTiming, ...options.timing },
  });
}

/** What gives the controller the right to read the Secrets of one namespace. */
const permissionCommand = (namespace: string, names: ControllerNames): string =>
  `kubectl create rolebinding connectors-secret-reader -n ${namespace} ` +
  `--clusterrole=${names.secretReaderClusterRole} ` +
  `--serviceaccount=${names.installNamespace}:${names.controllerServiceAccount}`;

/** Tells what came of a reconciliation. */
const observed =
  (reconcile: ReconcileConnector, { onReconcile }: ControllerOptions): ReconcileConnector =>
  async (ref) => {
    const started = performance.now();
    let result: ReconcileResult | undefined;
    try {
      result = await reconcile(ref);
      return result;
    } finally {
      const { outcome = "error", conditions } = result ?? {};
      const durationMs = performance.now() - started;
      onReconcile?.({ connector: showRef(ref), outcome, durationMs, conditions });
    }
  };

/** Names are labels of DNS: a key reads back as it was written. */
function parseRef(text: string): ConnectorRef {
  const [namespace = "", name = ""] = text.split("/");
  return { namespace, name };
}

/**
 * Old and new authorities differ in their names, too: some clients look for an issuer by its name
 * alone. The library for certificates takes 20 MiB, and is needed once in years.
 */
async function makeKeys(
  clock: Pick<Clock, "now">,
): Promise<Pick<ProxyKeys, "authority" | "sealKey">> {
  const { createAuthority } = await import("../certificate-authority.ts");
  const now = clock.now();
  const authority = await createAuthority(`oci-connector ${timestamp(now)}`, new Date(now));
  return { authority, sealKey: randomBytes(32) };
}
