import { Readable } from "node:stream";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../support/plain-request.ts";

/** Whom the requests of a workflow are sent to: a registry itself, or the proxy before another one of the same kind. */
export interface Peer {
  /** What stands before a repository: `http://localhost:5000/v2/`, `http://127.0.0.1:5080/v2/namespaces/…/`. */
  readonly base: string;
  /** What clients call a repository, where they name another one in a request. */
  nameOf(repository: string): string;
  /** A repository that is somewhere else for this registry: behind another connector, where there are connectors. */
  readonly elsewhere: string;
  send(method: string, url: string, options?: PeerRequest): Promise<PlainResponse>;
}

export interface PeerRequest extends Pick<PlainRequestOptions, "headers"> {
  readonly body?: Buffer;
  /** Says nothing of the body's length beforehand. */
  readonly chunked?: boolean;
  /** Sends no credentials, or others. */
  readonly login?: "none" | "wrong";
}

export interface Login {
  readonly username: string;
  readonly password: string;
}

const basic = (username: string, password: string): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

/** A registry, asked by somebody with its own login, who does what its challenges say. */
export function directPeer(
  url: string,
  { login, ca }: { readonly login?: Login | undefined; readonly ca?: string | undefined },
): Peer {
  const trust = ca === undefined ? {} : { ca };
  const tokens = new Map<string, string>();
  const tokenFor = async (challenge: string, user: Login): Promise<string> => {
    const known = tokens.get(challenge);
    if (known !== undefined) return known;
    const headers = { authorization: basic(user.username, user.password) };
    const answer = await plainRequest(tokenUrl(challenge), { ...trust, headers });
    const authorization = `Bearer ${JSON.parse(answer.body.toString()).token}`;
    tokens.set(challenge, authorization);
    return authorization;
  };
  /** Asked without a body: a registry that refuses one may close the connection in the middle of it. */
  const authorizationFor = async (
    method: string,
    target: string,
    user: Login,
  ): Promise<string | undefined> => {
    const { headers } = await plainRequest(target, requestOf(method, {}, trust));
    const challenge = headers["www-authenticate"] ?? "";
    if (challenge === "") return undefined;
    return /^basic/i.test(challenge)
      ? basic(user.username, user.password)
      : tokenFor(challenge, user);
  };
  return {
    base: `${url}/v2/`,
    nameOf: (repository) => repository,
    elsewhere: "elsewhere/app",
    async send(method, target, { login: how, ...options } = {}) {
      const authorization =
        login === undefined || how !== undefined
          ? logins[how ?? "none"]
          : await authorizationFor(method, target, login);
      const headers = { ...options.headers, ...(authorization && { authorization }) };
      return plainRequest(target, requestOf(method, { ...options, headers }, trust));
    },
  };
}

const logins = { none: undefined, wrong: basic("any", "wrong") } as const;

function tokenUrl(challenge: string): string {
  const [realm = "", service = "", scope = ""] = ["realm", "service", "scope"].map(
    (name) => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1],
  );
  const url = new URL(realm);
  url.searchParams.set("service", service);
  for (const one of scope.split(" ")) url.searchParams.append("scope", one);
  return url.href;
}

export interface ProxyOfPeer {
  /** `http://127.0.0.1:5080` */
  readonly url: string;
  readonly ca?: string | undefined;
  readonly connector: string;
  readonly token: string;
  /** The connector's own host, where the short form is used. */
  readonly host?: string | undefined;
  /** Host and port of the registry, which no client may hear of. */
  readonly registry: string;
}

/** The proxy, asked by somebody with the token of a volume. */
export function proxiedPeer(options: ProxyOfPeer): Peer {
  const { url, ca, connector, token, host, registry } = options;
  const trust = {
    ...(ca !== undefined && { ca }),
    ...(host !== undefined && { servername: host }),
  };
  const prefix = (name: string): string => `namespaces/team-a/connectors/${name}/`;
  const own = host === undefined ? prefix(connector) : "";
  const { protocol, port } = new URL(url);
  /** What clients call the proxy. */
  const origin = host === undefined ? url : `${protocol}//${host}:${port}`;
  return {
    base: `${url}/v2/${own}`,
    nameOf: (repository) => own + repository,
    elsewhere: `${prefix("another")}app`,
    async send(method, target, { login, ...options } = {}) {
      const authorization = login === undefined ? basic("any", token) : logins[login];
      const headers = {
        ...(host !== undefined && { host: `${host}:${port}` }),
        ...(authorization && { authorization }),
        ...options.headers,
      };
      const address = target.replace(origin, url);
      const answer = await plainRequest(address, requestOf(method, { ...options, headers }, trust));
      checkPlaces(answer, { origin, prefix: `/v2/${own}`, registry });
      return answer;
    },
  };
}

interface Places {
  /** What clients call the proxy. */
  readonly origin: string;
  /** What paths behind this connector begin with. */
  readonly prefix: string;
  /** Host and port of the registry. */
  readonly registry: string;
}

/** @throws where an answer names the registry, or a place that is not behind this connector, or an upload in another form */
function checkPlaces(
  { headers, rawHeaders }: PlainResponse,
  { origin, prefix, registry }: Places,
): void {
  const { location = prefix, link = `<${prefix}>` } = headers;
  const path = location.startsWith(`${origin}/`) ? location.slice(origin.length) : location;
  const isUpload = path.includes("/blobs/uploads/");
  const isFinal = !isUpload && path === location;
  const isSealed = isUpload && /\/[0-9a-f-]{36}\?_state=[\w-]+$/.test(path);
  const isInside = path.startsWith(prefix) && String(link).startsWith(`<${prefix}`);
  if (isInside && (isFinal || isSealed) && !rawHeaders.join("\n").includes(registry)) return;
  throw new Error(`the proxy names another place: ${rawHeaders.join(" ")}`);
}

function requestOf(
  method: string,
  { body, chunked, headers }: PeerRequest,
  trust: object,
): PlainRequestOptions {
  const framed = body === undefined && method === "POST" ? { "content-length": "0" } : {};
  return {
    ...trust,
    method,
    headers: { ...framed, ...headers },
    ...(body !== undefined && { body: chunked ? Readable.from([body]) : body }),
  };
}
