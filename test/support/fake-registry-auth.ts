import { randomBytes } from "node:crypto";
import {
  type Access,
  type Login,
  type Rights,
  readBasic,
  readScopes,
} from "../../examples/standalone/token-server.ts";
import type { Exchange } from "./fake-registry-exchange.ts";
import type { Target } from "./fake-registry-target.ts";

/** How a fake registry lets people in. All of it may be changed while the registry runs. */
export interface FakeAuth {
  mode: "none" | "basic" | "bearer";
  readonly users: Map<string, string>;
  /** More logins, as `user:password`: of a user that has several passwords at a time. */
  readonly logins: Set<string>;
  /** Identity token → user name: what a POST to the token endpoint takes in place of a password. */
  readonly identityTokens: Map<string, string>;
  /** What a token may be asked for; a known user may do everything, unless a test says otherwise. */
  rights: Rights;
  /** Whoever may push may delete, and nobody is asked for another right. */
  deletesAsPush: boolean;
  /** Of tokens, in seconds. */
  lifetime: number;
  /** Tokens that were given out. Deleting one revokes it. */
  readonly tokens: Map<string, Grant>;
  /** The token endpoint's answer. */
  answer: (grant: Grant) => object;
  /** The `WWW-Authenticate` of a 401. */
  challenge: (wanted: Challenge) => string | readonly string[];
}

export interface Grant {
  readonly token: string;
  readonly user: string | undefined;
  readonly access: readonly Access[];
  readonly lifetime: number;
  /** Milliseconds, of the registry's clock. */
  readonly expires: number;
}

export interface Challenge {
  readonly realm: string;
  readonly service: string;
  /** Empty for a ping. */
  readonly scope: string;
  readonly error: "invalid_token" | "insufficient_scope" | undefined;
}

export const fakeService = "fake-registry";

/** @param users user name → password */
export function createFakeAuth(
  mode: FakeAuth["mode"],
  users: Readonly<Record<string, string>>,
): FakeAuth {
  const auth: FakeAuth = {
    mode,
    users: new Map(Object.entries(users)),
    logins: new Set(),
    identityTokens: new Map(),
    rights: (user, { actions }) => (user === undefined ? [] : actions),
    deletesAsPush: false,
    lifetime: 300,
    tokens: new Map(),
    answer: ({ token, lifetime }) => ({ token, expires_in: lifetime }),
    challenge: (wanted) => (auth.mode === "basic" ? 'Basic realm="fake"' : bearer(wanted)),
  };
  return auth;
}

function bearer({ realm, service, scope, error }: Challenge): string {
  const parts = [`realm="${realm}"`, `service="${service}"`];
  if (scope !== "") parts.push(`scope="${scope}"`);
  if (error !== undefined) parts.push(`error="${error}"`);
  return `Bearer ${parts.join(",")}`;
}

/** What a registry of the distribution kind asks a token for. */
export function wantedAccess(method: string, target: Target, mountFrom?: string): Access[] {
  const { kind, repository } = target;
  if (kind === "catalog") return [{ type: "registry", name: "catalog", actions: ["*"] }];
  if (repository === "") return [];
  const on = (name: string, ...actions: string[]): Access => ({
    type: "repository",
    name,
    actions,
  });
  if (method === "DELETE") return [on(repository, "delete")];
  if (method === "GET" || method === "HEAD") return [on(repository, "pull")];
  const push = on(repository, "pull", "push");
  return mountFrom === undefined ? [push] : [push, on(mountFrom, "pull")];
}

/** What is wrong with a request's credentials, or undefined. */
export function refusal(
  auth: FakeAuth,
  { authorization, access, now }: { authorization?: string; access: Access[]; now: number },
): { readonly error: Challenge["error"] } | undefined {
  if (auth.mode === "none") return undefined;
  if (auth.mode === "basic") {
    return isKnown(auth, readBasic(authorization)) ? undefined : { error: undefined };
  }
  if (authorization === undefined) return { error: undefined };
  const token = /^bearer (.+)$/i.exec(authorization)?.[1];
  const grant = token === undefined ? undefined : auth.tokens.get(token);
  if (grant === undefined || grant.expires <= now) return { error: "invalid_token" };
  return access.every((wanted) => covers(grant, wanted))
    ? undefined
    : { error: "insufficient_scope" };
}

const covers = (grant: Grant, { type, name, actions }: Access): boolean =>
  actions.every((action) =>
    grant.access.some(
      (granted) =>
        granted.type === type &&
        granted.name === name &&
        (granted.actions.includes(action) || granted.actions.includes("*")),
    ),
  );

/** The token endpoint: GET with Basic, or without for anonymous tokens; POST with an identity token. */
export async function answerTokenRequest(
  auth: FakeAuth,
  exchange: Exchange,
  now: number,
): Promise<void> {
  const { request, query } = exchange;
  const { authorization } = request.headers;
  if (request.method === "POST") return answerTokenForm(auth, exchange, now);
  const login = readBasic(authorization);
  if (request.method !== "GET") return exchange.fail(405, "UNSUPPORTED");
  if (authorization !== undefined && !isKnown(auth, login)) {
    return exchange.fail(401, "UNAUTHORIZED");
  }
  exchange.json(200, grantToken(auth, login?.user, query.getAll("scope"), now));
}

/** https://distribution.github.io/distribution/spec/auth/oauth/ */
async function answerTokenForm(auth: FakeAuth, exchange: Exchange, now: number): Promise<void> {
  if (auth.identityTokens.size === 0) return exchange.fail(405, "UNSUPPORTED");
  const form = new URLSearchParams((await exchange.body()).toString());
  const type = exchange.request.headers["content-type"];
  const isForm = type === "application/x-www-form-urlencoded";
  const user = auth.identityTokens.get(form.get("refresh_token") ?? "");
  if (!isForm || form.get("grant_type") !== "refresh_token" || !form.has("client_id")) {
    return exchange.fail(400, "UNSUPPORTED");
  }
  if (user === undefined) return exchange.fail(401, "UNAUTHORIZED");
  const scopes = (form.get("scope") ?? "").split(" ").filter((scope) => scope !== "");
  exchange.json(200, grantToken(auth, user, scopes, now));
}

function grantToken(
  auth: FakeAuth,
  user: string | undefined,
  scopes: readonly string[],
  now: number,
): object {
  const access = readScopes(scopes).map((wanted) => ({
    ...wanted,
    actions: auth.rights(user, wanted),
  }));
  const grant: Grant = {
    token: `token-${randomBytes(16).toString("hex")}`,
    user,
    access,
    lifetime: auth.lifetime,
    expires: now + auth.lifetime * 1000,
  };
  auth.tokens.set(grant.token, grant);
  return auth.answer(grant);
}

const isKnown = (auth: FakeAuth, login: Login | undefined): boolean =>
  login !== undefined &&
  (auth.users.get(login.user) === login.password ||
    auth.logins.has(`${login.user}:${login.password}`));
