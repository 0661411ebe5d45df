/**
 * A query as it stands on the wire. Registries put state into it that has to come back byte for byte
 * (`_state=…%3D%3D`), so it is cut and joined, never parsed and written anew.
 */
export function withoutParameters(query: string, names: readonly string[]): string {
  if (query === "") return query;
  return query
    .split("&")
    .filter((part) => !names.includes(nameOf(part)))
    .join("&");
}

/** The decoded value of the first parameter of that name; undefined where there is none or it is malformed. */
export function parameter(query: string, name: string): string | undefined {
  const part = query.split("&").find((candidate) => nameOf(candidate) === name);
  if (part === undefined) return undefined;
  const value = part.slice(nameOf(part).length + 1);
  try {
    return decodeURIComponent(value.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}

/** Joins two queries. */
export const joinQueries = (...queries: readonly string[]): string =>
  queries.filter((query) => query !== "").join("&");

/** A path and its query, if it has one. */
export const withQuery = (path: string, query: string): string =>
  query === "" ? path : `${path}${path.includes("?") ? "&" : "?"}${query}`;

const nameOf = (part: string): string => part.split("=", 1)[0] ?? "";
