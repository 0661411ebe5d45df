/**
 * Reads and edits a query as it stands on the wire, without its question mark. Registries put state into it that has to
 * come back byte for byte (`_state=…%3D%3D`), so it is cut and joined, never parsed and serialized.
 */
import { attempt } from "../../error-code.ts";

/** The longest query that a client may send, and the longest one in an upload URL of a registry. Real ones have some hundred bytes. */
export const maxQueryBytes: number = 8 * 1024;
/** As many parameters may be in a client's query. The specification's tags beside a digest are ten. */
export const maxParameters = 64;

/** The parameter in which buildkit and containerd tell a mirror for which registry it stands: the host of the image's name. */
export const mirrorParameter = "ns";

/**
 * Removes all parameters of these names.
 * @param names decoded
 * @example withoutParameters("n=10&last=a", ["last"]) // "n=10"
 */
export function withoutParameters(query: string, names: readonly string[]): string {
  if (query === "") return query;
  const removed = new Set(names);
  return query
    .split("&")
    .filter((part) => !removed.has(nameOf(part)))
    .join("&");
}

/** The decoded value of the first parameter of a name; undefined where there is none. */
export const parameter = (query: string, name: string): string | undefined =>
  parameters(query, name)[0];

/** The decoded values of all parameters of a name. */
export const parameters = (query: string, name: string): readonly string[] =>
  query
    .split("&")
    .filter((part) => nameOf(part) === name)
    .map((part) => decode(part.slice(rawNameOf(part).length + 1)));

/** The decoded names of a query's parameters, in their order. */
export const parameterNames = (query: string): readonly string[] =>
  query === "" ? [] : query.split("&").map(nameOf);

/** The number of a query's parameters, the empty ones between two `&` included. */
export function countParameters(query: string): number {
  let count = query === "" ? 0 : 1;
  for (let at = query.indexOf("&"); at >= 0; at = query.indexOf("&", at + 1)) count += 1;
  return count;
}

/** Joins queries, of which some may be empty. */
export const joinQueries = (...queries: readonly string[]): string =>
  queries.filter((query) => query !== "").join("&");

/** Appends a query to a path, which may have one already; an empty query changes nothing. */
export const withQuery = (path: string, query: string): string =>
  query === "" ? path : `${path}${path.includes("?") ? "&" : "?"}${query}`;

const rawNameOf = (part: string): string => part.split("=", 1)[0] ?? "";

/** A parameter's name, decoded as a registry decodes it: `fr%6Fm` is `from`, too. */
const nameOf = (part: string): string => decode(rawNameOf(part));

/** Text that can't be decoded stands for itself, as it does for registries. */
const decode = (text: string): string =>
  attempt(
    () => decodeURIComponent(text.replaceAll("+", " ")),
    () => text,
  );
