import type { IncomingMessage } from "node:http";
import type { IssueLeaf } from "../certificate-authority.ts";
import type { AroundRequest, ReadUpstreamSecrets } from "../connector/platform.ts";
import type { TunnelRules } from "../connector/tunnel-rules.ts";
import type { Log } from "../log.ts";
import type { ResolveHost } from "../upstream/address-guard.ts";
import type { Egress } from "../upstream/egress.ts";
import { createTokenCache, type TokenOutcome } from "../upstream/token-cache.ts";
import { createUpstreams, type Upstreams } from "../upstream/upstream.ts";
import { createUpstreamLogin } from "../upstream/upstream-login.ts";
import type { UpstreamPolicy } from "../upstream/upstream-policy.ts";
import type { AdmissionOptions } from "./admission.ts";
import type { PoolLimits } from "./forward-mode/connection-pool.ts";
import { createForwardMode } from "./forward-mode/forward-mode.ts";
import { createHandler, type RequestObserver } from "./handler.ts";
import { createMirrorHandler, type MirrorSurroundings } from "./mirror/mirror-handler.ts";
import { createHashBudget, defaultRetryDelaysMs } from "./relay/download.ts";
import { createSessionSeal } from "./relay/upload-session.ts";
import { createRefusedBodies } from "./request/refused-bodies.ts";
import {
  createRequestLimiter,
  defaultRequestLimits,
  type RequestLimits,
} from "./request-limits.ts";
import type { ConnectionLimits, ShedReason } from "./server/connection-limits.ts";
import { createFairTurns } from "./server/fair-turns.ts";
import {
  type ListenAddress,
  type Listener,
  type ListenOptions,
  listen,
} from "./server/listener.ts";
import { createServerCertificates } from "./server/server-certificates.ts";

/** What the proxy is made of, and what it asks of its surroundings. */
export interface ProxyOptions extends AdmissionOptions {
  readonly listen: readonly ListenAddress[];
  readonly readUpstreamSecrets: ReadUpstreamSecrets;
  /** Is run around each request. Unless given, the request alone is. */
  readonly aroundRequest?: AroundRequest;
  /** The issuer of the current authority; another function once the authority has changed. */
  readonly leafIssuer: () => IssueLeaf;
  /** Whether the proxy has a certificate for this name, in lower case, which a client has sent as SNI. */
  readonly servesName: (name: string) => boolean;
  /** Keys for upload sessions, 32 bytes each, the same for all replicas; the first one seals, and all of them open. */
  readonly sealKeys: () => readonly [Buffer, ...Buffer[]];
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** How long no byte of a body may come before it counts as cut; 60,000 by default. */
  readonly bodyTimeoutMs?: number;
  /** How long a whole manifest of a push may take to come; 120,000 by default. */
  readonly manifestTimeoutMs?: number;
  /** How long a registry may take until the head of a response is whole; 15 minutes by default. */
  readonly headersTimeoutMs?: number;
  /** How long a client may take nothing of its response before it counts as gone; ten minutes by default. */
  readonly stallTimeoutMs?: number;
  /** Delays before each attempt to resume a blob that was cut; {@link defaultRetryDelaysMs} by default. */
  readonly retryDelaysMs?: readonly number[];
  /** Resolves the addresses of registries and other hosts; the system's resolver by default. */
  readonly lookup?: ResolveHost;
  /** The hosts that clients may reach through the proxy, beside their connectors. */
  readonly tunnels: TunnelRules;
  /** The current addresses of this node and of the cluster's API server: no tunnel leads there. */
  readonly ownAddresses: () => readonly string[];
  /** In a cluster: which addresses no connector leads to, whatever its document says. */
  readonly upstreamPolicy?: UpstreamPolicy;
  /** A company's proxy, by which registries and other hosts are reached. */
  readonly egress?: Egress | undefined;
  /** How much one tenant may take at a time. Where it says nothing, {@link defaultRequestLimits} count. */
  readonly limits?: Partial<RequestLimits>;
  /** How many connections to hosts that requests are passed on to are pooled; 256 by default, 16 of one subject. */
  readonly poolLimits?: PoolLimits;
  /** How many connections may be open at a listener. Where it says nothing, {@link defaultConnectionLimits} count. */
  readonly connectionLimits?: Partial<ConnectionLimits>;
  /** The mirror for container runtimes; without it there is none. */
  readonly mirror?: MirrorSurroundings | undefined;
  readonly observer?: ProxyObserver;
  readonly log: Log;
}

/** Gets what happens in the proxy, for the audit log and the metrics. */
export interface ProxyObserver extends RequestObserver {
  /** A request needed a registry token for a connector (`namespace/name`). */
  tokenNeeded(connector: string, outcome: TokenOutcome): void;
  /** A connection of a client was ended at a bound, so that others have room. */
  connectionShed?(reason: ShedReason): void;
}

const noObserver: ProxyObserver = {
  requestStarted: () => undefined,
  requestEnded: () => undefined,
  tokenNeeded: () => undefined,
};

/** A proxy that listens. */
export interface Proxy {
  /** The addresses that were wanted, with the ports that were found. */
  readonly addresses: readonly ListenAddress[];
  /** When the last connection came, in milliseconds of `performance.now`; 0 before the first. */
  lastConnectionAt(): number;
  /** Takes no new connections, waits for requests under way, and ends after `graceMs` at the latest. */
  stop(graceMs: number): Promise<void>;
}

const runAlone: AroundRequest = (run) => run();

/**
 * Starts the proxy: it relays registry requests of clients with the credentials of connectors.
 * @returns once all addresses are listened at
 * @throws the socket's error where one of them can't be had
 */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const { now, bodyTimeoutMs = 60_000, stallTimeoutMs = 600_000, observer = noObserver } = options;
  const createOwnUpstreams = (): Upstreams =>
    createUpstreams(bodyTimeoutMs, {
      lookup: options.lookup,
      headersTimeoutMs: options.headersTimeoutMs,
      policy: options.upstreamPolicy,
      egress: options.egress,
    });
  const upstreams = createOwnUpstreams();
  const handlerOptions = {
    ...options,
    aroundRequest: options.aroundRequest ?? runAlone,
    bodyTimeoutMs,
    manifestTimeoutMs: options.manifestTimeoutMs ?? 120_000,
    stallTimeoutMs,
    retryDelaysMs: options.retryDelaysMs ?? defaultRetryDelaysMs,
    hashBudget: createHashBudget(() => performance.now()),
    observer,
    turns: createFairTurns(),
    refusedBodies: createRefusedBodies(() => observer.connectionShed?.("bodies")),
    limits: createRequestLimiter({ ...defaultRequestLimits, ...options.limits }),
    upstreams,
    login: createUpstreamLogin(createTokenCache(now), now, observer.tokenNeeded),
    seal: createSessionSeal(options.sealKeys, now),
  };
  const anonymous =
    options.mirror?.withoutConnector === "anonymous"
      ? {
          ...handlerOptions,
          upstreams: createOwnUpstreams(),
          login: createUpstreamLogin(createTokenCache(now), now),
        }
      : undefined;
  const registryHandler = createHandler(
    handlerOptions,
    options.mirror && createMirrorHandler({ ...handlerOptions, ...options.mirror, anonymous }),
  );
  const forwardMode = createForwardMode(handlerOptions);
  const listenOptions: ListenOptions = {
    handler: (request, response) =>
      (isAbsoluteForm(request) ? forwardMode.handler : registryHandler)(request, response),
    onConnect: forwardMode.onConnect,
    certificates: createServerCertificates(options),
    turns: handlerOptions.turns,
    connectionLimits: options.connectionLimits,
    onShed: (reason) => observer.connectionShed?.(reason),
  };
  const listeners: Listener[] = [];
  const stop = async (graceMs: number): Promise<void> => {
    forwardMode.finish();
    await Promise.all(listeners.map((listener) => listener.stop(graceMs)));
    upstreams.destroy();
    anonymous?.upstreams.destroy();
  };
  try {
    for (const address of options.listen) {
      listeners.push(await listen(address, listenOptions));
    }
  } catch (error) {
    await stop(0);
    throw error;
  }
  return {
    addresses: listeners.map(({ address }) => address),
    lastConnectionAt: () => Math.max(...listeners.map((listener) => listener.lastConnectionAt())),
    stop,
  };
}

/** Clients send an absolute URL only to what they know as their proxy (RFC 9112, section 3.2.2). */
const isAbsoluteForm = ({ url = "" }: IncomingMessage): boolean => /^[a-z][a-z0-9+.-]*:/i.test(url);
