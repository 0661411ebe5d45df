/** Reads the one entry of a docker configuration (`~/.docker/config.json`, a pull secret) that is for a registry. */
import { parseJson, property } from "./document.ts";
import { isDockerHub, isDockerHubName, type RegistryAddress } from "./registry-address.ts";

/** What an entry of `auths` says. Its values are checked by whoever reads them. */
export interface DockerAuth {
  readonly username: unknown;
  readonly password: unknown;
  /** A token that logs in at the registry's token server in place of user and password. */
  readonly identityToken: unknown;
}

/** The entry for a registry, or why there is none. No reason shows anything of the text, or names another registry. */
export type FoundDockerAuth =
  | { readonly ok: true; readonly auth: DockerAuth }
  | { readonly ok: false; readonly found: string; readonly wanted: string };

/**
 * Finds the entry whose key fits an address, as tools choose it: the longest path first (containers-auth.json(5)), then
 * the host alone; keys may be URLs, with the version of the API behind them, as docker writes them. All names of Docker
 * Hub are one. Patterns (`*.example.com`), which the kubelet has beside these, fit nothing. No other entry is looked into.
 * @param text JSON with `auths`
 */
export function findDockerAuth(text: string, address: RegistryAddress): FoundDockerAuth {
  const names = namesOf(address);
  const wanted = `JSON with an entry in "auths" whose key is ${names.join(" or ")}`;
  const auths = property(parseJson(text), "auths");
  if (typeof auths !== "object" || auths === null || Array.isArray(auths)) {
    return { ok: false, found: 'something without "auths"', wanted };
  }
  const fitting = new Map<string, string>();
  for (const key of Object.keys(auths)) {
    const name = normalized(key, address);
    const isBest = key === name || key === dockerHubKey;
    if (isBest || !fitting.has(name)) fitting.set(name, key);
  }
  for (const name of names) {
    const key = fitting.get(name);
    if (key !== undefined) return readEntry(property(auths, key), name);
  }
  return { ok: false, found: "no entry for this registry", wanted };
}

/** The key that docker itself writes for Docker Hub. */
const dockerHubKey = "https://index.docker.io/v1/";

/** The keys that fit, the best first. */
function namesOf({ imageHost, basePath }: RegistryAddress): readonly string[] {
  const names = [imageHost];
  for (const segment of basePath.split("/").filter((one) => one !== "")) {
    names.unshift(`${names[0]}/${segment}`);
  }
  return names;
}

/**
 * The name that a key means: `https://Harbor.test/v2/` is `harbor.test`. The port that belongs to the address's scheme may
 * be written.
 */
function normalized(key: string, address: RegistryAddress): string {
  const [host = "", ...path] = key.replace(/^https?:\/\//i, "").split("/");
  const segments = path.filter((segment) => segment !== "");
  const isVersion = segments.length === 1 && /^v[12]$/.test(segments[0] ?? "");
  const name = host.toLowerCase().replace(address.scheme === "https" ? /:443$/ : /:80$/, "");
  const isHub = isDockerHub(address) && isDockerHubName(name);
  return [isHub ? address.imageHost : name, ...(isVersion ? [] : segments)].join("/");
}

const entryRule = '"auth", which is the base64 of user:password, or "username" and "password"';

function readEntry(entry: unknown, key: string): FoundDockerAuth {
  const identityToken = property(entry, "identitytoken") || undefined;
  const encoded = property(entry, "auth") || undefined;
  if (encoded === undefined) {
    const auth = {
      username: property(entry, "username") || undefined,
      password: property(entry, "password") || undefined,
      identityToken,
    };
    if (Object.values(auth).some((value) => value !== undefined)) return { ok: true, auth };
    const found = `an entry for ${key} without a login (a credential helper keeps it elsewhere)`;
    return { ok: false, found, wanted: entryRule };
  }
  const decoded = typeof encoded === "string" ? decodedAuth(encoded) : undefined;
  if (decoded === undefined) {
    const found = `an entry for ${key} whose "auth" is not the base64 of user:password`;
    return { ok: false, found, wanted: entryRule };
  }
  return { ok: true, auth: { ...decoded, identityToken } };
}

function decodedAuth(encoded: string): Omit<DockerAuth, "identityToken"> | undefined {
  const bytes = Buffer.from(encoded, "base64");
  const withoutPadding = (text: string): string => text.replace(/=+$/, "");
  const isBase64 =
    withoutPadding(bytes.toString("base64")) === withoutPadding(encoded.replace(/\s/g, ""));
  // RFC 7617, section 2: the first colon ends the user.
  const colon = bytes.indexOf(":");
  if (!isBase64 || colon < 0) return undefined;
  return {
    username: bytes.subarray(0, colon),
    password: bytes.subarray(colon + 1),
  };
}
