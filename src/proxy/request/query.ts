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

/** The decoded value of the first parameter of that name; undefined where there is none. */
export const parameter = (query: string, name: string): string | undefined =>
  parameters(query, name)[0];

/** The decoded values of all parameters of that name. */
export const parameters = (query: string, name: string): readonly string[] =>
  query
    .split("&")
    .filter((part) => nameOf(part) === name)
    .map((part) => decode(part.slice(rawNameOf(part).length + 1)));

/** The names of a query's parameters, decoded. */
export const parameterNames = (query: string): readonly string[] =>
  query === "" ? [] : query.split("&").map(nameOf);

/** Joins two queries. */
export const joinQueries = (...queries: readonly string[]): string =>
  queries.filter((query) => query !== "").join("&");

/** A path and its query, if it has one. */
export const withQuery = (path: string, query: string): string =>
  query === "" ? path : `${path}${path.includes("?") ? "&" : "?"}${query}`;

const rawNameOf = (part: string): string => part.split("=", 1)[0] ?? "";

/** Decoded, as a registry reads it: `fr%6Fm` is `from` too. */
const nameOf = (part: string): string => decode(rawNameOf(part));

/** What can't be decoded stands for itself, as registries have it. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}
