import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { EgressSettings } from "../config/cluster-settings.ts";
import type { Credential } from "../connector/credential.ts";
import type { EgressRules } from "../connector/egress-rules.ts";
import { unless } from "../error-code.ts";
import { createEgress, type Egress } from "../upstream/egress.ts";
import { sharedContext } from "../upstream/upstream.ts";

/**
 * Creates the way out by a company's proxy, where the settings name one. Nothing that goes to the API server takes it.
 * @throws Error with what to do, where its login can't be read
 */
export async function egressOf(settings: EgressSettings | undefined): Promise<Egress | undefined> {
  if (settings === undefined) return undefined;
  const { loginPath, ...rules } = settings;
  return egressWithLogin(rules, async () =>
    loginPath === undefined ? undefined : await readLogin(loginPath),
  );
}

/** Creates the way out by a company's proxy. @throws what the first reading of the login throws */
export const egressWithLogin = (
  rules: EgressRules,
  readLogin: () => Promise<Credential | undefined>,
): Promise<Egress> =>
  createEgress({
    rules,
    readLogin,
    secureContext: () => sharedContext([]),
    now: () => performance.now(),
  });

/**
 * Reads the login at a company's proxy.
 * @param path a folder with the files `username` and `password`, as a Secret is mounted; or a file with `user:password`
 * @returns undefined where the folder has neither of the two files
 * @throws Error that shows nothing of the login
 */
export async function readLogin(path: string): Promise<Credential | undefined> {
  const status = await stat(path).catch(() => undefined);
  if (status === undefined) throw unreadable(path, "nothing that can be read");
  if (!status.isDirectory()) {
    const text = (await readFile(path, "utf8").catch(unless("", "EACCES"))).replace(/\r?\n$/, "");
    const colon = text.indexOf(":");
    if (colon <= 0) throw unreadable(path, "no colon behind a user, or a file that can't be read");
    return checked(path, { username: text.slice(0, colon), password: text.slice(colon + 1) });
  }
  const [username, password] = await Promise.all(
    ["username", "password"].map((key) =>
      readFile(join(path, key), "utf8").catch(unless(undefined, "ENOENT")),
    ),
  );
  if (username === undefined && password === undefined) return undefined;
  if (username === undefined || password === undefined) {
    throw unreadable(path, "one of the two keys alone");
  }
  return checked(path, { username, password });
}

/** What a header can carry (RFC 7617, section 2). */
function checked(path: string, credential: Credential): Credential {
  const { username, password } = credential;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (username.includes(":") || /[\u0000-\u001f\u007f]/.test(username + password)) {
    throw unreadable(path, "a colon in the user, or a newline or another control character");
  }
  return credential;
}

const unreadable = (path: string, found: string): Error =>
  new Error(
    `the login of the egress proxy: found ${found} in ${path}, wanted a file with USER:PASSWORD on one line, or a Secret of the type kubernetes.io/basic-auth with username and password`,
  );
