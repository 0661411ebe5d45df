import { STATUS_CODES } from "node:http";
import type { Server } from "node:https";
import { Socket } from "node:net";
import { errorBody, RegistryError } from "../registry-error.ts";

const tooLarge = new RegistryError(431, "UNSUPPORTED", "the head of this request is too large", {
  detail: "the request line and headers may have at most 64 KiB",
});
const tooSlow = new RegistryError(
  408,
  "UNSUPPORTED",
  "the head of this request did not arrive in time",
  {
    detail: "send it within a minute",
  },
);
const unreadable = new RegistryError(400, "UNSUPPORTED", "this is not an HTTP/1.1 request", {
  detail: "a request that can be read in two ways is also refused",
});
const notTls = new RegistryError(
  400,
  "UNSUPPORTED",
  "this port expects TLS, but the request is plain HTTP",
  {
    detail: "use https://, or the proxy's port for plain HTTP",
  },
);

const errorsByCode: Readonly<Record<string, RegistryError>> = {
  HPE_HEADER_OVERFLOW: tooLarge,
  ERR_HTTP_REQUEST_TIMEOUT: tooSlow,
};

/**
 * Responds to a `clientError` of Node's: the HTTP parser could not read a request, so there is just a socket to
 * write to. A client that speaks TLS to a plain port gets the same response, which Go's clients recognise
 * ("server gave HTTP response to HTTPS client").
 */
export function respondToClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === "ECONNRESET") socket.destroy();
  else respond(socket, errorsByCode[error.code ?? ""] ?? unreadable);
}

/** Has a TLS server respond in plain HTTP to clients that speak plain HTTP to it. */
export function respondToPlainHttp(server: Server): void {
  server.on("tlsClientError", (error: NodeJS.ErrnoException, secure: Socket) => {
    if (error.code !== "ERR_SSL_HTTP_REQUEST") return;
    // Node has no public name for the socket below; without it, the connection just ends.
    const plain: unknown = Reflect.get(secure, "_parent");
    if (plain instanceof Socket && plain.writable) respond(plain, notTls);
  });
}

function respond(socket: Socket, error: RegistryError): void {
  const body = errorBody(error);
  socket.end(
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}\r\nConnection: close\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
