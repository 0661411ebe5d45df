/** Requests that end early, since one of the two sides has gone away. */
import type { ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";

/** The client went away, so there is nobody to respond to. */
export class ClientGone extends Error {
  override readonly name = "ClientGone";
}

/** A body ended early. The client's connection is destroyed, so that the client can't take the body for a whole one. */
export class BodyCut extends Error {
  override readonly name = "BodyCut";
}

/**
 * Ends a response that is not whole. HTTP/1.0 takes the end of a connection for the end of a body, so there
 * it is reset; elsewhere it is not, since containerd continues with Range only after a plain end.
 */
export function cut(response: ServerResponse): void {
  const { socket, req } = response;
  if (req.httpVersion === "1.0" && !(socket instanceof TLSSocket)) socket?.resetAndDestroy();
  response.destroy();
}
