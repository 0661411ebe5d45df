import { createHash } from "node:crypto";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

export interface Target {
  /** `127.0.0.1:34567` */
  readonly host: string;
  readonly token: string;
}

/** An answer; its body is hashed as it comes, and kept where it is small. */
export interface PacedAnswer {
  readonly status: number;
  /** The path and the query of its Location. */
  readonly location: string | undefined;
  readonly body: Buffer;
  readonly bytes: number;
  /** Whether the body came to its end. */
  readonly complete: boolean;
}

export interface PacedRequest {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
  /** Is given the body, chunk by chunk. */
  readonly onChunk?: (chunk: Buffer) => void;
}

/** Sends one request; undefined where no answer comes. */
export type PacedClient = (
  method: string,
  path: string,
  options?: PacedRequest,
) => Promise<PacedAnswer | undefined>;

/** Bytes that are written or read at a time, and the rest after them. Together 640 KiB/s. */
const piece = 64 * 1024;
const rest = 100;

/** A client that keeps a connection, and takes its time, so that many of them are under way at any moment. */
export function pacedClient({ host, token }: Target): PacedClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const [hostname, port] = host.split(":");
  const authorization = `Bearer ${token}`;
  return async (method, path, { headers, body, onChunk } = {}) => {
    const length = method === "GET" ? {} : { "content-length": String(body?.length ?? 0) };
    const sent = httpRequest({
      agent,
      hostname,
      port,
      method,
      path,
      headers: { ...headers, ...length, authorization },
    });
    sent.on("error", () => {}); // the answer tells, or that there is none
    sent.setTimeout(90_000, () => sent.destroy());
    const answered = new Promise<IncomingMessage | undefined>((resolve) => {
      sent.once("response", resolve).once("close", () => resolve(undefined));
    });
    for (let at = 0; body !== undefined && at < body.length && !sent.destroyed; at += piece) {
      sent.write(body.subarray(at, at + piece));
      if (at + piece < body.length) await sleep(rest);
    }
    sent.end();
    const answer = await answered;
    return answer && read(answer, onChunk);
  };
}

async function read(
  answer: IncomingMessage,
  onChunk: PacedRequest["onChunk"],
): Promise<PacedAnswer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let due = piece;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (onChunk === undefined) chunks.push(chunk);
      else onChunk(chunk);
      if (bytes < due) continue;
      due += piece;
      await sleep(rest);
    }
  } catch {
    // `complete` tells.
  }
  return {
    status: answer.statusCode ?? 0,
    location: answer.headers.location?.replace(/^https?:\/\/[^/]+/, ""),
    body: Buffer.concat(chunks),
    bytes,
    complete: answer.complete,
  };
}

/** `sha256:…` of what is still to come. */
export function digestOfChunks(): { add(chunk: Buffer): void; digest(): string } {
  const hash = createHash("sha256");
  return {
    add: (chunk) => void hash.update(chunk),
    digest: () => `sha256:${hash.digest("hex")}`,
  };
}
