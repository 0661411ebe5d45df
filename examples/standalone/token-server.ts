/**
 * A token server as registries use them: it knows the users, and signs tokens that say what one of
 * them may do with a repository. It speaks the token protocol of the CNCF distribution registry,
 * both its GET and its POST form.
 */
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { importPKCS8, SignJWT } from "jose";
import { createAuthority } from "../../src/certificate-authority.ts";

/** What a client asks for, and what a token then says: `repository:team/app:pull,push`. */
export interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/** Which of the wanted actions somebody may do; `user` is undefined for anonymous clients. */
export type Rights = (user: string | undefined, wanted: Access) => readonly string[];

export interface TokenServerOptions {
  /** User name → password. */
  readonly users: ReadonlyMap<string, string>;
  /** The registry's `service`: the audience of the tokens. */
  readonly service: string;
  /** The name of this server in the tokens. */
  readonly issuer?: string;
  /** Without it a known user may do everything, and anonymous clients nothing. */
  readonly rights?: Rights;
  /** How long a token is valid, in seconds. */
  readonly lifetime?: number;
  /** Told of each token that is given out. */
  readonly onToken?: (token: string) => void;
}

/** An HTTP request handler that gives out tokens, and the certificate that registries check them by. */
export interface TokenHandler {
  readonly handle: RequestListener;
  /** PEM, for the registry's `rootcertbundle`. */
  readonly certificate: string;
}

const usersMayAll: Rights = (user, { actions }) => (user === undefined ? [] : actions);

/** Makes a signing key of its own. The options are read at each request. */
export async function createTokenHandler(options: TokenServerOptions): Promise<TokenHandler> {
  const authority = await createAuthority("token server", new Date());
  const signingKey = await importPKCS8(authority.privateKey, "ES256");
  // Registries of version 2 and 3 both find the key by the certificate in the header (RFC 7515, 4.1.6).
  const header = { alg: "ES256", typ: "JWT", x5c: [derOf(authority.certificate)] };

  const sign = (user: string | undefined, access: readonly Access[], now: number, expiry: number) =>
    new SignJWT({ access: [...access] })
      .setProtectedHeader(header)
      .setIssuer(options.issuer ?? defaultIssuer)
      .setSubject(user ?? "")
      .setAudience(options.service)
      .setIssuedAt(now)
      .setNotBefore(now - 10) // the registry's clock may be behind
      .setExpirationTime(expiry)
      .setJti(randomUUID())
      .sign(signingKey);

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const asked = await readRequest(request);
    if (asked === undefined) return refuse(response, 400, "UNSUPPORTED");
    const { login, scopes } = asked;
    if (login !== undefined && !isUser(options.users, login)) {
      response.setHeader("WWW-Authenticate", 'Basic realm="token server"');
      return refuse(response, 401, "UNAUTHORIZED");
    }
    const rights = options.rights ?? usersMayAll;
    const lifetime = options.lifetime ?? defaultLifetime;
    const now = Math.floor(Date.now() / 1000);
    const access = scopes
      .map((wanted) => ({ ...wanted, actions: rights(login?.user, wanted) }))
      .filter(({ actions }) => actions.length > 0);
    const token = await sign(login?.user, access, now, now + lifetime);
    options.onToken?.(token);
    send(response, 200, {
      token,
      access_token: token,
      expires_in: lifetime,
      issued_at: new Date(now * 1000).toISOString(),
    });
  };

  return {
    certificate: authority.certificate,
    handle: (request, response) => {
      answer(request, response).catch(() => response.destroy());
    },
  };
}

export const defaultIssuer = "token-server";
const defaultLifetime = 300;

export interface Login {
  readonly user: string;
  readonly password: string;
}

interface TokenRequest {
  /** Undefined for an anonymous client. */
  readonly login: Login | undefined;
  readonly scopes: readonly Access[];
}

/** What is asked for, or undefined where that is no request for a token. */
async function readRequest(request: IncomingMessage): Promise<TokenRequest | undefined> {
  const url = URL.parse(request.url ?? "", "http://token-server");
  if (url?.pathname !== "/token") return undefined;
  if (request.method === "GET") {
    const login = readBasic(request.headers.authorization);
    return { login, scopes: readScopes(url.searchParams.getAll("scope")) };
  }
  if (request.method !== "POST") return undefined;
  const form = new URLSearchParams(await readText(request));
  if (form.get("grant_type") !== "password") return undefined;
  const login = { user: form.get("username") ?? "", password: form.get("password") ?? "" };
  return { login, scopes: readScopes(form.getAll("scope")) };
}

async function readText(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) {
    text += chunk;
    if (text.length > 64 * 1024) throw new Error("the form is too long");
  }
  return text;
}

/** The user and the password of an `Authorization: Basic` header (RFC 7617). */
export function readBasic(authorization: string | undefined): Login | undefined {
  const encoded = /^basic +(\S+)$/i.exec(authorization ?? "")?.[1];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Scopes come as several parameters, as one with spaces between them, or both. */
export function readScopes(parameters: readonly string[]): readonly Access[] {
  return parameters
    .flatMap((parameter) => parameter.split(" "))
    .flatMap((scope) => {
      // The name may have colons of its own: "repository:localhost:5000/app:pull".
      const match = /^([^:]+):(.+):([^:]*)$/.exec(scope);
      if (match === null) return [];
      const [, type = "", name = "", actions = ""] = match;
      return [{ type, name, actions: actions.split(",") }];
    });
}

const isUser = (users: ReadonlyMap<string, string>, { user, password }: Login): boolean =>
  users.has(user) && users.get(user) === password;

function refuse(response: ServerResponse, status: number, code: string): void {
  send(response, status, { errors: [{ code, message: "no token" }] });
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
}

/** The certificate as it stands between the lines of PEM: base64 of DER. */
const derOf = (pem: string): string => pem.replace(/-----[A-Z ]+-----|\s/g, "");

/** A token server that runs. */
export interface TokenServer {
  /** What a registry's configuration names as its `realm`. */
  readonly realm: string;
  readonly issuer: string;
  stop(): Promise<void>;
}

/**
 * Listens on `host` (`localhost` unless said otherwise), and writes the certificate for the registry to
 * `certificateFile`.
 */
export async function startTokenServer(
  options: TokenServerOptions & {
    readonly certificateFile: string;
    readonly host?: string;
    /** 0, the default, takes a free one. */
    readonly port?: number;
  },
): Promise<TokenServer> {
  const { handle, certificate } = await createTokenHandler(options);
  await writeFile(options.certificateFile, certificate);
  const server = createServer(handle);
  const host = options.host ?? "localhost";
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(options.port ?? 0, host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    realm: `http://${host}:${port}/token`,
    issuer: options.issuer ?? defaultIssuer,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
