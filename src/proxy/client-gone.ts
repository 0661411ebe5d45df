/** Requests that end early, since one of the two sides has gone away. */
import type { ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";

/** The client went away, so there is nobody to respond to. */
export class ClientGone extends Error {
  override readonly name = "ClientGone";
}

const goneSignals = new WeakMap<ServerResponse, AbortSignal>();

/** The signal that is aborted, with {@link ClientGone}, once a client's connection is closed; a response has one. */
export function goneSignal(response: ServerResponse): AbortSignal {
  const known = goneSignals.get(response);
  if (known !== undefined) return known;
  const controller = new AbortController();
  const abort = (): void => controller.abort(new ClientGone("the client closed the connection"));
  if (response.destroyed) abort();
  else response.once("close", abort);
  goneSignals.set(response, controller.signal);
  return controller.signal;
}

/**
 * A body ended early. Where a part of it has gone out, the client's connection is destroyed, so that the client can't take
 * that part for a whole body; where nothing has, the client gets an error.
 */
export class BodyCut extends Error {
  override readonly name: string = "BodyCut";
}

/** A body is not the content that its digest stands for. It ends as one that was cut does. */
export class WrongContent extends BodyCut {
  override readonly name: string = "WrongContent";
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
