/** What may happen to a connection of this client, besides what the system says of its socket. */
const messages = {
  CONNECT_TIMEOUT: "the server did not accept the connection in time",
  HEADERS_TIMEOUT: "the head of the response did not come in time",
  BODY_TIMEOUT: "no more of the response's body came in time",
  HEADERS_OVERFLOW: "the head of the response is too long",
  LENGTH_MISMATCH: "the response's body has another length than its head says",
  CONNECTION_CLOSED: "the other side closed the connection",
  UNWANTED_BYTES: "bytes came without a request",
  IDLE: "the connection was not used for some time",
  CLIENT_DESTROYED: "the client was ended",
} as const;

export type ConnectionErrorCode = keyof typeof messages;

/** A connection has ended, and with it the request under way. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  readonly code: ConnectionErrorCode;

  constructor(code: ConnectionErrorCode) {
    super(messages[code]);
    this.code = code;
  }
}
