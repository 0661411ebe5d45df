import type { IssueLeaf } from "../../certificate-authority.ts";
import type { TunnelRules } from "../../connector/tunnel-rules.ts";
import type { ResolveHost } from "../../upstream/address-guard.ts";
import type { Egress } from "../../upstream/egress.ts";
import { createReportingHandler, type HandlerOptions } from "../handler.ts";
import type { FairTurns } from "../server/fair-turns.ts";
import type { ConnectHandler, Handler } from "../server/listener.ts";
import { createServerCertificates } from "../server/server-certificates.ts";
import { createBlindTunnels } from "./blind-tunnels.ts";
import { createConnectHandler } from "./connect-handler.ts";
import { createConnectionPool, type PoolLimits } from "./connection-pool.ts";
import { createInterceptedRequestHandler, createPlainRequestHandler } from "./forwarded-request.ts";
import { createInterception } from "./interception.ts";
import { createTunnelPolicy } from "./tunnel-policy.ts";

/** What forward mode needs; startProxy has the meaning of each. */
export interface ForwardModeOptions extends HandlerOptions {
  readonly tunnels: TunnelRules;
  readonly ownAddresses: () => readonly string[];
  readonly leafIssuer: () => IssueLeaf;
  /** When requests start. */
  readonly turns: FairTurns;
  readonly lookup?: ResolveHost;
  /** A company's proxy, by which hosts are reached. */
  readonly egress?: Egress | undefined;
  /** How many connections to hosts that requests are passed on to are kept. */
  readonly poolLimits?: PoolLimits;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/**
 * The proxy as clients know it from `https_proxy`: they speak through it to registries under the registries' own names, and to
 * other hosts.
 */
export interface ForwardMode {
  /** Handles requests in absolute form. */
  readonly handler: Handler;
  readonly onConnect: ConnectHandler;
  /** Ends idle connections, of clients and to other hosts, at once, and each other one after what is under way on it. */
  finish(): void;
}

/** Creates the handlers of forward mode. */
export function createForwardMode(options: ForwardModeOptions): ForwardMode {
  const policy = createTunnelPolicy({ ...options, rules: options.tunnels });
  const connectionPool = createConnectionPool(options.poolLimits);
  const forwardOptions = { ...options, policy, connectionPool };
  const interception = createInterception({
    // The connect handler intercepts only hosts of connectors.
    certificates: createServerCertificates({ ...options, servesName: () => true }),
    handler: createReportingHandler(options, createInterceptedRequestHandler(forwardOptions)),
    turns: options.turns,
  });
  const tunnels = createBlindTunnels();
  return {
    handler: createReportingHandler(options, createPlainRequestHandler(forwardOptions)),
    onConnect: createConnectHandler({ ...forwardOptions, interception, tunnels }),
    finish() {
      interception.finish();
      tunnels.finish();
      connectionPool.finish();
    },
  };
}
