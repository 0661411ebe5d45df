/** What a request to a registry is about. */
export interface Target {
  readonly kind: TargetKind;
  /** Empty where the request names none. */
  readonly repository: string;
  /** A blob's digest, a manifest's tag or digest; empty where the request names none. */
  readonly reference: string;
}

export type TargetKind =
  | "ping"
  | "token"
  | "catalog"
  | "blob"
  | "manifest"
  | "tags"
  | "referrers"
  /** Where uploads begin. */
  | "uploads"
  /** An upload that has begun, whatever its URL looks like. */
  | "upload"
  | "other";

const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const name = `(${component}(?:/${component})*)`;
const digest = "([a-z0-9]+:[A-Za-z0-9]+)";

const patterns: readonly (readonly [TargetKind, RegExp])[] = [
  ["ping", /^\/v2\/$/],
  ["token", /^\/token$/],
  ["catalog", /^\/v2\/_catalog$/],
  ["uploads", new RegExp(`^/v2/${name}/blobs/uploads/$`)],
  ["blob", new RegExp(`^/v2/${name}/blobs/${digest}$`)],
  ["manifest", new RegExp(`^/v2/${name}/manifests/([A-Za-z0-9_][A-Za-z0-9._:-]*)$`)],
  ["tags", new RegExp(`^/v2/${name}/tags/list$`)],
  ["referrers", new RegExp(`^/v2/${name}/referrers/${digest}$`)],
];

/**
 * Reads a path as it came, with nothing decoded or normalised: a path with a `%` or a `//` in it is
 * "other". Uploads are none of its business, since their URLs are opaque.
 */
export function readTarget(path: string, basePath: string): Target {
  // The token endpoint is not the registry's, and stays where it is.
  const own = path.startsWith(basePath) ? path.slice(basePath.length) : "";
  for (const [kind, pattern] of patterns) {
    const match = pattern.exec(kind === "token" ? path : own);
    if (match !== null) return { kind, repository: match[1] ?? "", reference: match[2] ?? "" };
  }
  return { kind: "other", repository: "", reference: "" };
}
