import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connector } from "../connector/connector.ts";
import type { Identity } from "../connector/platform.ts";
import type { Patience } from "./relay/patience.ts";
import type { RepositoryTarget } from "./request/request-target.ts";
import type { ReportDraft } from "./request-report.ts";

/** A client's request that has passed every check of the handler and is to be relayed, with its response. */
export interface AdmittedRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly method: string;
  readonly target: RepositoryTarget;
  /** The connector, at the one of its addresses that the request is for. */
  readonly connector: Connector;
  readonly identity: Identity;
  /** Whether it came by the forward proxy. Its client has no login for the registry's own host. */
  readonly isForward: boolean;
  /** The body of a manifest, which is read whole so that the request can be sent again. Undefined for any other body. */
  readonly heldBody: Buffer | undefined;
  readonly report: ReportDraft;
  readonly patience: Patience;
}
