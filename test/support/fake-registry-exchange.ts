import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { readTarget, type Target } from "./fake-registry-target.ts";
import type { Uploads } from "./fake-registry-uploads.ts";

/** One request that has arrived. */
export interface RecordedRequest {
  readonly method: string;
  /** The request target as it came, with nothing decoded. */
  readonly url: string;
  readonly target: Target;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  /** The client's port: tells connections apart. */
  readonly remotePort: number | undefined;
  /** Bytes of the body that the registry has read. */
  bodyLength: number;
  /** What was answered, once that is known. */
  readonly status: number | undefined;
}

/** Headers; one with several values is sent several times. */
export type Fields = Readonly<Record<string, string | string[]>>;

/** A request and the means to answer it. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly record: RecordedRequest;
  readonly target: Target;
  /** As it came, with nothing decoded. */
  readonly path: string;
  /** What the registry's paths begin with. */
  readonly basePath: string;
  readonly query: URLSearchParams;
  readonly rawQuery: string;
  /** Reads the whole body. */
  body(): Promise<Buffer>;
  send(status: number, headers: Fields, body?: Buffer): void;
  json(status: number, value: unknown, headers?: Fields): void;
  /** Sends an error of the distribution protocol. */
  fail(status: number, code: string, message?: string): void;
  /** Goes on with what would have been done without this handler. */
  next(): Promise<void>;
}

/** @param uploads the uploads that have begun, which a request may be about */
export function makeExchange(
  request: IncomingMessage,
  response: ServerResponse,
  { uploads, basePath }: { readonly uploads: Uploads; readonly basePath: string },
): Exchange {
  const [path = "", ...rest] = (request.url ?? "").split("?");
  const rawQuery = rest.join("?");
  const upload = uploads.get(path);
  const target: Target = upload
    ? { kind: "upload", repository: upload.repository, reference: upload.id }
    : readTarget(path, basePath);
  const record: RecordedRequest = {
    method: request.method ?? "",
    url: request.url ?? "",
    target,
    headers: request.headers,
    rawHeaders: request.rawHeaders,
    remotePort: request.socket.remotePort,
    bodyLength: 0,
    get status() {
      return response.headersSent ? response.statusCode : undefined;
    },
  };
  const send: Exchange["send"] = (status, headers, body = Buffer.alloc(0)) => {
    const length = status === 204 || status === 304 ? {} : { "Content-Length": body.length };
    response.writeHead(status, { ...length, ...headers }).end(body);
  };
  const json: Exchange["json"] = (status, value, headers) => {
    const body = Buffer.from(JSON.stringify(value));
    send(status, { "Content-Type": "application/json", ...headers }, body);
  };
  return {
    request,
    response,
    record,
    target,
    path,
    basePath,
    rawQuery,
    send,
    json,
    query: new URLSearchParams(rawQuery),
    fail: (status, code, message = code) => json(status, { errors: [{ code, message }] }),
    async body() {
      const chunks: Buffer[] = [];
      for await (const chunk of request) {
        record.bodyLength += chunk.length;
        chunks.push(chunk);
      }
      return Buffer.concat(chunks);
    },
    next: async () => {},
  };
}
