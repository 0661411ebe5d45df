import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connector } from "../connector/connector.ts";
import type { Identity } from "../connector/surroundings.ts";
import type { Patience } from "./relay/patience.ts";
import type { SessionSeal } from "./relay/upload-session.ts";
import type { RepositoryTarget } from "./request/request-target.ts";
import type { ReportDraft } from "./request-report.ts";

/** A request that has been let in, and whose answer is to be made. */
export interface Admitted {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly method: string;
  readonly target: RepositoryTarget;
  readonly connector: Connector;
  readonly identity: Identity;
  /** Whether it came by the forward proxy, and so has no login for the host that it asks. */
  readonly isForward: boolean;
  /** A body that is small enough to be held, so that the request can be sent again. */
  readonly held: Buffer | undefined;
  readonly report: ReportDraft;
  readonly patience: Patience;
}

export interface Sealing {
  readonly seal: SessionSeal;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}
