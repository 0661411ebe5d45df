import { type ConnectorRef, isConnectorName, isNamespace } from "../../connector/connector-ref.ts";
import { isDigest, isReference, isRepository } from "../../connector/repository.ts";
import { RegistryError } from "../registry-error.ts";
import {
  countParameters,
  maxParameters,
  maxQueryBytes,
  parameters,
  withoutParameters,
} from "./query.ts";

/** What a request is about: a part of a repository, or the catalog of the whole registry. */
export type Endpoint =
  | { readonly kind: "catalog" }
  | { readonly kind: "manifest"; readonly reference: string }
  | { readonly kind: "blob"; readonly digest: string }
  | { readonly kind: "uploads" }
  | UploadEndpoint
  | { readonly kind: "tags" }
  | { readonly kind: "referrers"; readonly digest: string };

/** An upload that is under way: `blobs/uploads/<id>?_state=<session>`. */
export interface UploadEndpoint {
  readonly kind: "upload";
  /** What the path calls it, which says nothing; undefined in the form without a query, whose path has the session. */
  readonly id: string | undefined;
  /** The sealed session, see `SessionSeal`. */
  readonly session: string;
}

/** The parameter that has the session of an upload, as in the URLs of distribution's registry. */
export const stateParameter = "_state";

/** A request target that names something in a registry. */
export interface RepositoryTarget {
  /** Undefined in the short form: the Host header names the connector. */
  readonly connector: ConnectorRef | undefined;
  /** The path before the repository: `/v2/namespaces/team-a/connectors/harbor/`, or `/v2/`. */
  readonly prefix: string;
  /** Empty for the catalog, which is about all repositories. */
  readonly repository: string;
  readonly endpoint: Endpoint;
  /** The raw query without its question mark, and without the session of an upload. */
  readonly query: string;
}

/** The digest of the manifest or blob that an endpoint names; undefined where it names none, or a tag. */
export function digestOf(endpoint: Endpoint): string | undefined {
  if (endpoint.kind === "blob") return endpoint.digest;
  const isByDigest = endpoint.kind === "manifest" && endpoint.reference.includes(":");
  return isByDigest ? endpoint.reference : undefined;
}

/** What a request asks for: `/v2/` itself (`"base"`), or something in a registry. */
export type RequestTarget = "base" | RepositoryTarget;

const connectorForm = /^\/v2\/namespaces\/([^/]+)\/connectors\/([^/]+)\/(.*)$/;
/** The characters of a path. A registry may read `%`, `\` and control characters in another way than this proxy. */
const plainPath = /^\/[A-Za-z0-9._~:@+=/-]*$/;
/** Some clients encode the colon of a digest. It has no other meaning, and is relayed decoded. */
const encodedColon = /%3a/gi;
const plainQuery = /^[\x21\x22\x24-\x7e]*$/;

/**
 * Parses a request target in origin form (RFC 9112, section 3.2.1), strictly: the result is what is checked and what is
 * relayed, so there is no second way to read it.
 * @throws RegistryError 404 with what a target has to look like, 400 for a malformed digest or an ambiguous query, 414 for a long one
 * @example
 * parseRequestTarget("/v2/namespaces/team-a/connectors/harbor/app/manifests/1.0")
 * // connector team-a/harbor, repository "app", endpoint { kind: "manifest", reference: "1.0" }
 */
export function parseRequestTarget(target: string): RequestTarget {
  const { path, query, session } = splitTarget(target);
  if (path === "/v2/" || path === "/v2") return "base";
  const full = connectorForm.exec(path);
  if (full === null) {
    if (!path.startsWith("/v2/")) throw invalidTarget();
    return parseRegistryPath(undefined, "/v2/", { path, query, session });
  }
  const [, namespace = "", name = "", rest = ""] = full;
  if (!isNamespace(namespace) || !isConnectorName(name)) throw invalidTarget();
  if (rest === "") return "base";
  const prefix = path.slice(0, path.length - rest.length);
  return parseRegistryPath({ namespace, name }, prefix, { path, query, session });
}

/**
 * Parses the target of a request to a registry under the registry's own address, as clients send it in forward mode: its
 * path names no connector. It is as strict as {@link parseRequestTarget}.
 * @param basePath the path before `/v2/` in the registry's address, empty where there is none
 * @throws RegistryError 404 with what a target has to look like, 400 for a malformed digest or an ambiguous query, 414 for a long one
 */
export function parseRegistryTarget(target: string, basePath: string): RequestTarget {
  const { path, query, session } = splitTarget(target);
  const prefix = `${basePath}/v2/`;
  if (path === prefix || `${path}/` === prefix) return "base";
  if (!path.startsWith(prefix)) throw invalidTarget();
  return parseRegistryPath(undefined, prefix, { path, query, session });
}

interface SplitTarget {
  readonly path: string;
  /** Without the session of an upload. */
  readonly query: string;
  /** The session of an upload that its query has. */
  readonly session: string | undefined;
}

function splitTarget(target: string): SplitTarget {
  const mark = target.indexOf("?");
  const path = (mark < 0 ? target : target.slice(0, mark)).replace(encodedColon, ":");
  const whole = mark < 0 ? "" : target.slice(mark + 1);
  if (!plainPath.test(path) || !plainQuery.test(whole)) throw invalidTarget();
  if (whole.includes(";")) throw ambiguousQuery();
  const { query, session } = uploadPath.test(path)
    ? splitSession(whole)
    : { query: whole, session: undefined };
  checkQuerySize(query);
  return { path, query, session };
}

const uploadPath = /\/blobs\/uploads\/[^/]+$/;
/** A session with a second question mark behind it, as clients write it that expect a Location without a query. No session has one. */
const secondMark = new RegExp(`^(${stateParameter}=[\\w-]+)\\?`);

/** Takes the session of an upload out of its query. Of several sessions, none is meant. */
function splitSession(whole: string): Pick<SplitTarget, "query" | "session"> {
  const joined = whole.replace(secondMark, "$1&");
  const [session, ...others] = parameters(joined, stateParameter);
  const query = withoutParameters(joined, [stateParameter]);
  return { query, session: others.length === 0 ? session : "" };
}

function parseRegistryPath(
  connector: ConnectorRef | undefined,
  prefix: string,
  { path, query, session }: SplitTarget,
): RepositoryTarget {
  const rest = path.slice(prefix.length);
  if (rest === "_catalog") {
    return { connector, prefix, repository: "", endpoint: { kind: "catalog" }, query };
  }
  const segments = rest.split("/");
  const parsed = parseEndpoint(segments, session);
  const repository = parsed && segments.slice(0, -parsed.length).join("/");
  if (!parsed || !repository || !isRepository(repository)) throw invalidTarget();
  const { endpoint } = parsed;
  if ("digest" in endpoint && !isDigest(endpoint.digest)) throw invalidDigest();
  return { connector, prefix, repository, endpoint, query };
}

/** Parses from the end, since a component of a repository may itself be called `manifests` or `blobs`. */
function parseEndpoint(
  segments: readonly string[],
  session: string | undefined,
): { readonly endpoint: Endpoint; readonly length: number } | undefined {
  const [third, second, last] = segments.slice(-3);
  if (last === undefined || second === undefined) return undefined;
  if (third === "blobs" && second === "uploads") {
    return { endpoint: uploadOf(last, session), length: 3 };
  }
  if (second === "blobs" && last === "uploads") return { endpoint: { kind: "uploads" }, length: 2 };
  if (second === "tags" && last === "list") return { endpoint: { kind: "tags" }, length: 2 };
  const endpoint = endpointOf(second, last);
  return endpoint && { endpoint, length: 2 };
}

/** Sessions stood in the path before they stood in the query. They are good for a day, so an upload goes on after an update. */
function uploadOf(last: string, session: string | undefined): Endpoint {
  if (last === "") return { kind: "uploads" };
  return session === undefined
    ? { kind: "upload", id: undefined, session: last }
    : { kind: "upload", id: last, session };
}

function endpointOf(kind: string, last: string): Endpoint | undefined {
  if (kind === "manifests" && isReference(last)) return { kind: "manifest", reference: last };
  if (last === "") return undefined;
  if (kind === "blobs") return { kind: "blob", digest: last };
  if (kind === "referrers") return { kind: "referrers", digest: last };
  return undefined;
}

/** The status is 400, as the specification has it for referrers ("Listing Referrers"): 404 would say that there is no such API. */
const invalidDigest = (): RegistryError =>
  new RegistryError(400, "DIGEST_INVALID", "this path has no digest where one is required", {
    detail: "a digest looks like sha256:<hexadecimal>",
  });

/** @throws RegistryError 414 (RFC 9110, section 15.5.15), 400 */
function checkQuerySize(query: string): void {
  if (query.length > maxQueryBytes) {
    throw new RegistryError(414, "UNSUPPORTED", `this query has ${query.length} bytes`, {
      detail: `send one of at most ${maxQueryBytes} bytes`,
    });
  }
  const count = countParameters(query);
  if (count <= maxParameters) return;
  throw new RegistryError(400, "UNSUPPORTED", `this query has ${count} parameters`, {
    detail: `send at most ${maxParameters}`,
  });
}

/** Some servers begin a new parameter at a semicolon, too (Go's before 1.17). */
const ambiguousQuery = (): RegistryError =>
  new RegistryError(400, "UNSUPPORTED", 'this query can be read in two ways: it has a ";"', {
    detail: 'separate parameters by "&", and write a semicolon in a value as %3B',
  });

const invalidTarget = (): RegistryError =>
  new RegistryError(404, "NAME_INVALID", "this path is not part of the registry API", {
    detail:
      "expected /v2/namespaces/<namespace>/connectors/<connector>/<repository>/(manifests|blobs|tags|referrers)/… or …/_catalog, " +
      'the repository in lower case, without "%", "//" or ".."',
  });

const allowedMethods: Readonly<Record<Endpoint["kind"] | "base", readonly string[]>> = {
  base: ["GET", "HEAD"],
  catalog: ["GET", "HEAD"],
  manifest: ["GET", "HEAD", "PUT", "DELETE"],
  blob: ["GET", "HEAD", "DELETE"],
  uploads: ["POST"],
  upload: ["GET", "HEAD", "PATCH", "PUT", "DELETE"],
  tags: ["GET", "HEAD"],
  referrers: ["GET", "HEAD"],
};

/**
 * Refuses a method that the registry API does not have for a target.
 * @throws RegistryError 405 with the methods that there are
 */
export function checkMethod(method: string, target: RequestTarget): void {
  const kind = target === "base" ? target : target.endpoint.kind;
  if (allowedMethods[kind].includes(method)) return;
  const allow = allowedMethods[kind].join(", ");
  throw new RegistryError(405, "UNSUPPORTED", `${method} is not allowed on this path`, {
    detail: `allowed: ${allow}`,
    headers: { allow },
  });
}
