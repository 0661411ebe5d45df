import type { IssueLeaf } from "../../certificate-authority.ts";
import type { TunnelRules } from "../../connector/tunnel-rules.ts";
import type { ResolveHost } from "../../upstream/address-guard.ts";
import { createReportingHandler, type HandlerOptions } from "../handler.ts";
import type { ConnectHandler, Handler } from "../server/listener.ts";
import { createServerCertificates } from "../server/server-certificates.ts";
import { createBlindTunnels } from "./blind-tunnels.ts";
import { createConnectHandler } from "./connect-handler.ts";
import { createConnectionPool, type PoolLimits } from "./connection-pool.ts";
import { createInterceptedRequestHandler, createPlainRequestHandler } from "./forwarded-request.ts";
import { createInterception } from "./interception.ts";
import { createTunnelPolicy } from "./tunnel-policy.ts";

export interface ForwardModeOptions extends HandlerOptions {
  readonly tunnels: TunnelRules;
  readonly ownAddresses: () => readonly string[];
  readonly leafIssuer: () => IssueLeaf;
  readonly lookup?: ResolveHost;
  /** How many connections are kept to hosts that requests are passed on to. */
  readonly poolLimits?: PoolLimits;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** The proxy as clients know it from `https_proxy`: they speak to registries under their own names, and to other hosts. */
export interface ForwardMode {
  /** For requests in absolute form. */
  readonly handler: Handler;
  readonly onConnect: ConnectHandler;
  /** Ends connections on which nothing is under way, of clients and to other hosts, and the others when that is through. */
  finish(): void;
}

export function createForwardMode(options: ForwardModeOptions): ForwardMode {
  const policy = createTunnelPolicy({ ...options, rules: options.tunnels });
  const connectionPool = createConnectionPool(options.poolLimits);
  const forwardOptions = { ...options, policy, connectionPool };
  const interception = createInterception({
    // Whoever is let in has named a connector at that host.
    certificates: createServerCertificates({ ...options, servesName: () => true }),
    handler: createReportingHandler(options, createInterceptedRequestHandler(forwardOptions)),
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
