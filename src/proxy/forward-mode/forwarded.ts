import type { IncomingMessage, ServerResponse } from "node:http";
import type { ConnectorRef } from "../../connector/connector-ref.ts";
import type { Identity } from "../../connector/surroundings.ts";
import type { HandlerOptions } from "../handler.ts";
import type { ReportDraft } from "../request-report.ts";
import type { ConnectionPool } from "./connection-pool.ts";
import type { ForwardTarget } from "./forward-target.ts";
import type { TunnelPolicy } from "./tunnel-policy.ts";

export interface ForwardOptions extends HandlerOptions {
  readonly policy: TunnelPolicy;
  /** To hosts that requests are passed on to. */
  readonly connectionPool: ConnectionPool;
}

/** A request of forward mode, and who has sent it. */
export interface ForwardedRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly report: ReportDraft;
  /** Where it goes; its path is the request's own. */
  readonly target: ForwardTarget;
  readonly identity: Identity;
  readonly connectors: readonly ConnectorRef[];
}
