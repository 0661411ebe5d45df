import http, { type IncomingMessage } from "node:http";
import https, { type RequestOptions } from "node:https";

export interface ApiCall {
  readonly method?: "GET" | "POST" | "PATCH" | "DELETE";
  /** `/api/v1/namespaces/team-a/secrets/harbor` */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Of the body; JSON unless given. */
  readonly contentType?: string;
}

export interface ApiRequestOptions {
  /** Ends the exchange, also while its answer is read. */
  readonly signal: AbortSignal;
  /** Within how many milliseconds an answer has to begin. */
  readonly headMs: number;
  /** For how many milliseconds nothing may come in the middle of an answer. */
  readonly silenceMs: number;
}

/** A peer that is gone shows after some 25 s: this, and ten probes of a second each. */
const keepAliveMs = 15_000;

/** A connection that was kept, and that the API server has closed just before we used it. */
class StaleConnection extends Error {}

const staleCodes: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

/** As many kept connections may all have been closed: the API server has been restarted. */
const mostStale = 5;

/** Sends a request and awaits the head of its answer. */
export async function sendApiRequest(
  access: ApiAccess,
  call: ApiCall,
  options: ApiRequestOptions,
): Promise<IncomingMessage> {
  const url = urlOf(access.server, call);
  for (let stale = 0; ; stale += 1) {
    const body = bodyOf(call);
    const settings = await settingsOf(access, call, body, options.signal);
    try {
      return await sendOnce(url, settings, body, options);
    } catch (error) {
      if (!(error instanceof StaleConnection) || stale === mostStale) throw error;
    }
  }
}

function urlOf(server: URL, { path, query = {} }: ApiCall): URL {
  const url = new URL(server);
  url.pathname = `${server.pathname.replace(/\/$/, "")}${path}`;
  url.search = new URLSearchParams(query).toString();
  return url;
}

const bodyOf = ({ body }: ApiCall): string | undefined =>
  body === undefined ? undefined : JSON.stringify(body);

async function settingsOf(
  access: ApiAccess,
  call: ApiCall,
  body: string | undefined,
  signal: AbortSignal,
): Promise<RequestOptions> {
  const given = await access.requestOptions();
  // Without a length node:http sends the body of a DELETE all the same, as if another request began.
  const type = body !== undefined && {
    "content-type": call.contentType ?? json,
    "content-length": Buffer.byteLength(body),
  };
  return {
    ...given,
    method: call.method ?? "GET",
    signal,
    headers: { ...given.headers, accept: json, "user-agent": "oci-connector", ...type },
  };
}

const json = "application/json";

function sendOnce(
  url: URL,
  settings: RequestOptions,
  body: string | undefined,
  { headMs, silenceMs }: ApiRequestOptions,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { request } = url.protocol === "http:" ? http : https;
    const outgoing = request(url, settings, (incoming) => {
      incoming.setTimeout(silenceMs, () => incoming.destroy(silent(silenceMs)));
      resolve(incoming);
    });
    outgoing.once("socket", (socket) => socket.setKeepAlive(true, keepAliveMs));
    outgoing.setTimeout(headMs, () => outgoing.destroy(silent(headMs)));
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      const isStale = outgoing.reusedSocket && staleCodes.has(error.code ?? "");
      reject(isStale ? new StaleConnection() : error);
    });
    outgoing.end(body);
  });
}

const silent = (ms: number): Error => new Error(`no data arrived for ${ms / 1000} s`);

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
