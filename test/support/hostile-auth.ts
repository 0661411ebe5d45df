import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { FakeRegistry } from "./fake-registry.ts";

/** Takes a behaviour away again. */
export type Undo = () => void;

/**
 * Realms to which no credential may go, each with what is wrong with it.
 * @param elsewhere a server on another host, which records what arrives
 */
export function forbiddenRealms(
  registry: FakeRegistry,
  elsewhere: FakeRegistry,
): ReadonlyMap<string, string> {
  return new Map([
    ["another host", `${elsewhere.url}/token`],
    ["a user and a password", `${registry.url.replace("://", "://user:password@")}/token`],
    ["a user that looks like the registry", `http://${registry.host}@${elsewhere.host}/token`],
    ["a backslash that ends the host for some", `${elsewhere.url}\\@${registry.host}/token`],
    ["a host that begins like the registry", `http://${registry.host}.attacker.test/token`],
    ["the address of cloud metadata", "http://169.254.169.254/token"],
    ["the same, IPv6", "http://[fd00:ec2::254]/token"],
    ["the same, mapped into IPv6", "http://[::ffff:169.254.169.254]/token"],
    ["the same, as one number", "http://2852039166/token"],
    ["the same, octal", "http://0251.0376.0251.0376/token"],
    ["the same, another cloud's", "http://100.100.100.200/token"],
    ["the unspecified address", `http://0.0.0.0:${elsewhere.port}/token`],
    ["a link-local address", "http://[fe80::1]/token"],
    ["a file", "file:///etc/passwd"],
    ["another protocol", `gopher://${registry.host}/token`],
    ["nothing but a path", "/token"],
    ["no scheme", `//${elsewhere.host}/token`],
    ["nothing", ""],
  ]);
}

/** Challenges that make no sense, each with what is wrong with it. */
export const garbageChallenges: ReadonlyMap<string, string> = new Map([
  ["nothing", ""],
  ["only a scheme", "Bearer"],
  ["an unknown scheme", 'Negotiate realm="http://127.0.0.1/token"'],
  ["a quote without an end", 'Bearer realm="http://127.0.0.1/token,service="x'],
  ["no realm", 'Bearer service="x"'],
  ["signs alone", '=,"=",,;'],
  ["a very long one", `Bearer realm="http://127.0.0.1/${"x".repeat(12_000)}"`],
  ["many parameters", `Bearer ${'a="b",'.repeat(2000)}realm="x"`],
  ["bytes that are no ASCII", 'Bearer realm="http://127.0.0.1/tök\u00ff"'],
]);

/** Sends everybody to this realm for a token. */
export function useRealm(registry: FakeRegistry, realm: string): void {
  registry.auth.challenge = ({ service, scope }) =>
    `Bearer realm="${realm}",service="${service}",scope="${scope}"`;
}

/** Tokens die after so many requests that were let in; a new one is given to whoever asks. */
export function revokeTokensAfter(registry: FakeRegistry, requests: number): Undo {
  let left = requests;
  return registry.on("* *", async ({ target, next }) => {
    await next();
    if (target.kind === "token" || --left > 0) return;
    left = requests;
    registry.auth.tokens.clear();
  });
}

/** Gives out tokens, and accepts none. */
export const refuseEverybody = (registry: FakeRegistry): Undo =>
  registry.on(
    "* *",
    ({ target, next }) => {
      if (target.kind !== "token") registry.auth.tokens.clear();
      return next();
    },
    "before auth",
  );

/** What a token endpoint may do in place of giving a token. */
export const tokenEndpoint = {
  slow: (registry: FakeRegistry, milliseconds: number): Undo =>
    registry.on("* token", async ({ next }) => {
      await sleep(milliseconds, undefined, { ref: false });
      await next();
    }),

  fails: (registry: FakeRegistry, status = 500): Undo =>
    registry.on("* token", ({ fail }) => fail(status, "UNKNOWN")),

  /** No byte is ever answered. */
  hangs: (registry: FakeRegistry): Undo => registry.on("* token", () => {}),

  /** Begins like an answer, and never ends. */
  endless: (registry: FakeRegistry): Undo =>
    registry.on("* token", ({ response }) =>
      // It ends when the client goes away.
      pipeline(endlessToken, response).catch(() => {}),
    ),

  /** A body that is no JSON; a parser's message quotes it, `secret` too. */
  notJson: (registry: FakeRegistry, secret: string): Undo =>
    registry.on("* token", ({ send }) => send(200, {}, Buffer.from(`${secret} {"token":`))),

  /** JSON of an unexpected kind. */
  answers: (registry: FakeRegistry, value: unknown): Undo =>
    registry.on("* token", ({ json }) => json(200, value)),

  redirects: (registry: FakeRegistry, location: string): Undo =>
    registry.on("* token", ({ send }) => send(307, { Location: location })),
} as const;

async function* endlessToken(): AsyncGenerator<string> {
  yield '{"token":"';
  for (;;) yield "a".repeat(65_536);
}
