import type { RequestOptions } from "node:https";

/** Where the API server is, and as whom we ask it. */
export interface ApiAccess {
  /** Its base URL, `https://10.96.0.1:443`, perhaps with a path. */
  readonly server: URL;
  /**
   * Headers, agent and TLS settings of the next request. Asked each time, since tokens and
   * certificates are replaced while we run.
   */
  readonly requestOptions: () => Promise<RequestOptions>;
}
