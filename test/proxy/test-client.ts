import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../support/plain-request.ts";
import type { TestProxy } from "./test-proxy.ts";

export interface TestClientOptions {
  readonly scheme?: "http" | "https";
  /** A token of its own that opens just this connector, unless one is given. */
  readonly token?: string;
}

/** A registry client of one connector: `client("GET", "app/tags/list")`. */
export interface TestClient {
  (method: string, path: string, options?: PlainRequestOptions): Promise<PlainResponse>;
  readonly token: string;
  readonly authorization: string;
  /** `/v2/namespaces/team-a/connectors/<name>/` */
  readonly base: string;
  /** `http://127.0.0.1:5080` */
  readonly origin: string;
}

/** @returns a client that sends what it is told; paths that begin with a slash, and URLs of the proxy, are taken as they are */
export function clientOf(
  proxy: TestProxy,
  name: string,
  { scheme = "http", token = proxy.token(name) }: TestClientOptions = {},
): TestClient {
  const base = `/v2/namespaces/team-a/connectors/${name}/`;
  const authorization = basicAuth(token);
  const origin = `${scheme}://${proxy[scheme]}`;
  const send = (
    method: string,
    path: string,
    options: PlainRequestOptions = {},
  ): Promise<PlainResponse> => {
    const inside = path.startsWith(`${origin}/`) ? path.slice(origin.length) : path;
    const target = inside.startsWith("/") ? inside : base + inside;
    return plainRequest(`${origin}/`, {
      ...options,
      method,
      target,
      headers: { authorization, ...options.headers },
      ...(scheme === "https" && { ca: proxy.surroundings.authority.certificate }),
    });
  };
  return Object.assign(send, { token, authorization, base, origin });
}

/** What ends the path of an upload's Location: a name, and the sealed session in the query. */
export const sealedUpload: RegExp = /\/blobs\/uploads\/[\w.-]+\?_state=[\w-]{40,}$/;

export const basicAuth = (token: string, user = "any"): string =>
  `Basic ${Buffer.from(`${user}:${token}`).toString("base64")}`;

/** The only error of a registry's error body. */
export function errorIn({ body, headers }: PlainResponse): {
  readonly code: string;
  readonly message: string;
  readonly detail?: string;
} {
  if (headers["content-type"] !== "application/json") {
    throw new Error(`no JSON but ${headers["content-type"]}: ${body}`);
  }
  const { errors } = JSON.parse(body.toString());
  if (!Array.isArray(errors) || errors.length !== 1) throw new Error(`not one error: ${body}`);
  return errors[0];
}
