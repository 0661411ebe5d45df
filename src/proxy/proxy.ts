import type { IncomingMessage, ServerResponse } from "node:http";
import type { IssueLeaf } from "../certificate-authority.ts";
import type { ReadUpstreamSecrets } from "../connector/surroundings.ts";
import type { TunnelRules } from "../connector/tunnel-rules.ts";
import type { Log } from "../log.ts";
import type { ResolveHost } from "../upstream/address-guard.ts";
import { createTokenCache, type TokenOutcome } from "../upstream/token-cache.ts";
import { createUpstreams } from "../upstream/upstream.ts";
import { createUpstreamLogin } from "../upstream/upstream-login.ts";
import type { AdmissionOptions } from "./admission.ts";
import { createForwardMode } from "./forward-mode/forward-mode.ts";
import type { KeptLimits } from "./forward-mode/kept-connections.ts";
import { createHandler, type RequestObserver } from "./handler.ts";
import { createHashBudget, defaultRetryDelaysMs } from "./relay/download.ts";
import { createSessionSeal } from "./relay/upload-session.ts";
import {
  createRequestLimiter,
  defaultRequestLimits,
  type RequestLimits,
} from "./request-limits.ts";
import { type ListenAddress, type Listener, listen } from "./server/listener.ts";
import { createServerCertificates } from "./server/server-certificates.ts";

export interface ProxyOptions extends AdmissionOptions {
  readonly listen: readonly ListenAddress[];
  readonly readUpstreamSecrets: ReadUpstreamSecrets;
  /** Signs with the authority of the moment; another function once that has changed. */
  readonly leafIssuer: () => IssueLeaf;
  /** Whether a name is one that the proxy answers under over TLS. */
  readonly servesName: (name: string) => boolean;
  /** 32 bytes each, the same for all replicas; the first one seals, and all of them open. */
  readonly sealKeys: () => readonly [Buffer, ...Buffer[]];
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Milliseconds without a byte after which a body counts as cut; 60,000 where nothing is said. */
  readonly bodyTimeoutMs?: number;
  /** Milliseconds after which a client that takes nothing of its answer counts as gone; ten minutes where nothing is said. */
  readonly stallTimeoutMs?: number;
  /** Before each try to go on with a blob that was cut, in milliseconds; {@link defaultRetryDelaysMs} where nothing is said. */
  readonly retryDelaysMs?: readonly number[];
  /** Finds the addresses of registries; the system's, where none is given. */
  readonly lookup?: ResolveHost;
  /** Where clients may go through the proxy, beside their connectors. */
  readonly tunnels: TunnelRules;
  /** Addresses of this node, and of the cluster's API server, as they are now: no tunnel leads there. */
  readonly ownAddresses: () => readonly string[];
  /** How much one tenant may ask for at a time; {@link defaultRequestLimits} where nothing is said. */
  readonly limits?: RequestLimits;
  /** How many connections to hosts that requests are passed on to are kept; hundreds where nothing is said. */
  readonly keptLimits?: KeptLimits;
  /** How many connections of one address may be open at a listener; thousands where nothing is said. */
  readonly maxConnectionsPerAddress?: number;
  readonly observer?: ProxyObserver;
  readonly log: Log;
}

export interface ProxyObserver extends RequestObserver {
  /** A request needed a registry token. */
  tokenNeeded(connector: string, outcome: TokenOutcome): void;
}

const noObserver: ProxyObserver = {
  requestStarted: () => undefined,
  requestEnded: () => undefined,
  tokenNeeded: () => undefined,
};

export interface Proxy {
  /** As asked for, with the ports that were found. */
  readonly addresses: readonly ListenAddress[];
  /** When the last connection came, as `performance.now` tells time; 0 before the first. */
  lastConnectionAt(): number;
  /** Takes no new connections, finishes what is under way, and ends after `grace` milliseconds at the latest. */
  stop(grace: number): Promise<void>;
}

/**
 * The proxy role: registry requests of Pods, answered with the credentials of connectors.
 * @throws the socket's error where an address can't be had
 */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const { now, bodyTimeoutMs = 60_000, stallTimeoutMs = 600_000, observer = noObserver } = options;
  const upstreams = createUpstreams(bodyTimeoutMs, options.lookup);
  const handling = {
    ...options,
    bodyTimeoutMs,
    stallTimeoutMs,
    retryDelaysMs: options.retryDelaysMs ?? defaultRetryDelaysMs,
    hashBudget: createHashBudget(() => performance.now()),
    observer,
    limits: createRequestLimiter(options.limits ?? defaultRequestLimits),
    upstreams,
    login: createUpstreamLogin(createTokenCache(now), observer.tokenNeeded),
    seal: createSessionSeal(options.sealKeys, now),
  };
  const reverse = createHandler(handling);
  const forward = createForwardMode(handling);
  const listening = {
    handler: (request: IncomingMessage, response: ServerResponse) =>
      (isForReverse(request) ? reverse : forward.handler)(request, response),
    onConnect: forward.onConnect,
    certificates: createServerCertificates(options),
    maxConnectionsPerAddress: options.maxConnectionsPerAddress,
  };
  const listeners: Listener[] = [];
  const stop = async (grace: number): Promise<void> => {
    forward.finish();
    await Promise.all(listeners.map((listener) => listener.stop(grace)));
    await upstreams.destroy();
  };
  try {
    for (const address of options.listen) {
      listeners.push(await listen(address, listening));
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

/** RFC 9112, section 3.2: a proxy is asked in absolute form, or by CONNECT; a server in any other. */
const isForReverse = ({ url = "" }: IncomingMessage): boolean => !/^[a-z][a-z0-9+.-]*:/i.test(url);
