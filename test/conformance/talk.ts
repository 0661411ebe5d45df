import type { IncomingHttpHeaders } from "node:http";
import { sha256 } from "../support/oci-image.ts";
import type { PlainResponse } from "../support/plain-request.ts";
import type { Peer, PeerRequest } from "./peer.ts";

/** A conversation with a registry, or with the proxy before it, that is written down so that two can be compared. */
export interface Talk {
  /** A repository that nobody else uses, and does not exist. */
  readonly repository: string;
  /** Another one. */
  readonly other: string;
  readonly peer: Peer;
  /**
   * Asks for something: `manifests/1` in the repository, `/_catalog` or `/<repository>/…` beside it, or a URL
   * that the registry has named.
   * @throws where the status is none of those that the specification allows
   */
  send(method: string, where: string, options: TalkRequest): Promise<TalkAnswer>;
}

export interface TalkRequest extends PeerRequest {
  /** The statuses that the specification allows. The first is that of a registry which can do everything. */
  readonly allow: readonly number[];
  /** Whether such a registry may choose, too. */
  readonly isFree?: boolean;
}

export interface TalkAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Where `Location` points. */
  readonly location: string;
  /** Where `Link` points; undefined where there is no next page. */
  readonly next: string | undefined;
}

/** One exchange, with nothing in it that is another one each time. */
export interface Noted {
  readonly request: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface TalkOptions {
  readonly repository: string;
  readonly peer: Peer;
  /** Which statuses end the conversation: those that the specification does not allow, all but the first that it allows, or none. */
  readonly strictness: Strictness;
}

export type Strictness = "complete" | "allowed" | "any";

/** @returns the conversation, and what was said in it */
export function openTalk({ repository, peer, strictness }: TalkOptions): {
  readonly talk: Talk;
  readonly noted: readonly Noted[];
} {
  const noted: Noted[] = [];
  const talk: Talk = {
    repository,
    other: `${repository}-other`,
    peer,
    async send(method, where, { allow, isFree, ...request }) {
      const url = urlOf(where, talk);
      const answer = await peer.send(method, url, request).catch(asAnswer);
      const line = `${method} ${shortUrl(new URL(url), peer)}`;
      noted.push({ request: line, ...note(answer, url, peer) });
      const allowed = strictness === "complete" && !isFree ? allow.slice(0, 1) : allow;
      if (strictness !== "any" && !allowed.includes(answer.status)) {
        const text = answer.body.subarray(0, 500).toString();
        throw new Error(`${line}: ${answer.status} is none of ${allowed.join(", ")}: ${text}`);
      }
      const { location = "", link } = answer.headers;
      const [, next] = /<([^>]*)>/.exec(String(link ?? "")) ?? [];
      return {
        ...answer,
        location: location && new URL(location, url).href,
        next: next === undefined ? undefined : new URL(next, url).href,
      };
    },
  };
  return { talk, noted };
}

/** A connection that ends without an answer, noted like one. */
function asAnswer(error: NodeJS.ErrnoException): PlainResponse {
  if (error.code !== "ECONNRESET") throw error;
  return {
    status: 0,
    phrase: "",
    headers: {},
    rawHeaders: [],
    body: Buffer.from("closed"),
    complete: true,
  };
}

function urlOf(where: string, { peer, repository }: Talk): string {
  if (/^https?:/.test(where)) return where;
  return peer.base + (where.startsWith("/") ? where.slice(1) : `${repository}/${where}`);
}

/**
 * What is no header of the registry, but of the connection or the moment; all others are compared.
 * A proxy speaks for itself there (RFC 9110, section 7.6.1).
 */
export const notCompared: readonly string[] = [
  "connection",
  "date",
  "keep-alive",
  "transfer-encoding",
];

/** Headers that differ by intent, and how each of them is made comparable. */
export const madeComparable: Readonly<Record<string, string>> = {
  "docker-upload-uuid": "a number of its own for each upload",
  link: "paths that the client must request",
  location:
    "a path that the client must request, never the registry's host; that of an upload is sealed in its query, absolute where the registry's is, and compared by continuing the upload there",
};

function note(
  { status, headers, body, complete }: PlainResponse,
  url: string,
  peer: Peer,
): Omit<Noted, "request"> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!notCompared.includes(name)) kept[name] = String(value);
  }
  const canonical = (text: string): string => shortUrl(new URL(text, url), peer);
  if (kept.location !== undefined) kept.location = canonicalLocation(kept.location, canonical);
  if (kept.link !== undefined) {
    kept.link = kept.link.replace(/<([^>]*)>/g, (_, text: string) => `<${canonical(text)}>`);
  }
  if (/^[0-9a-f-]{36}$/.test(kept["docker-upload-uuid"] ?? "")) kept["docker-upload-uuid"] = "one";
  const type = kept["content-type"] ?? "";
  const [, boundary = "none"] = /boundary=(\w+)/.exec(type) ?? [];
  const withoutBoundary = (text: string): string => text.replaceAll(boundary, "boundary");
  if (boundary !== "none") kept["content-type"] = withoutBoundary(type);
  const text = body.length < 4096 ? withoutBoundary(body.toString("latin1")) : sha256(body);
  return { status, headers: kept, body: complete ? text : `${text} and then a cut` };
}

/** Where an upload goes on looks the same for clients: many take a URL with a host, or without one, and no other. */
function canonicalLocation(location: string, canonical: (text: string) => string): string {
  const place = canonical(location);
  if (!place.startsWith("an upload")) return place;
  return `${place}, ${/^https?:/.test(location) ? "absolute" : "relative"}`;
}

/** Uploads are wherever a registry likes: what is neither a list nor a thing is one. */
const known = /(\/(manifests|blobs)\/[^/?]+|\/tags\/list|\/referrers\/[^/?]+|^_catalog|^)(\?.*)?$/;

function shortUrl(url: URL, peer: Peer): string {
  const inside = url.href.startsWith(peer.base) ? url.href.slice(peer.base.length) : url.href;
  const [begin] = /^[^?]*\/blobs\/uploads\/(?=$|\?)/.exec(inside) ?? [];
  if (begin !== undefined || known.test(inside)) return `/${begin ?? inside}`;
  const [, digest] = /[?&](digest=.*)$/.exec(url.search) ?? [];
  return digest === undefined ? "an upload" : `an upload, ${digest}`;
}
