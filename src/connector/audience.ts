/** For whom tokens of identities may be, as the operator of an installation says it. */
import type { Checked } from "./problem.ts";
import { readEntries, splitList } from "./setting-list.ts";

/** An audience that the operator allows for a registry, beside the registry's own origin. */
export interface AllowedAudience {
  readonly audience: string;
  /** The registry that such tokens may go to: its host, with its port unless that is the scheme's own. */
  readonly host: string;
}

/**
 * The exchanges of clouds: a token for one of them is a login at that cloud. What is reserved here stands in
 * daemonset/token-policy.yaml, too.
 */
const cloudAudiences: readonly RegExp[] = [
  /^sts(\.[a-z0-9.-]+)?\.amazonaws\.com(\.cn)?$/,
  /^https:\/\/sts(\.[a-z0-9.-]+)?\.amazonaws\.com(\.cn)?(\/|$)/,
  /^api:\/\/azureadtokenexchange/,
  /^https:\/\/login\.(microsoftonline\.(com|us)|chinacloudapi\.cn|partner\.microsoftonline\.cn)(\/|$)/,
  /^(https:)?\/\/(iam|sts|iamcredentials)\.googleapis\.com(\/|$)/,
  /\.svc\.id\.goog$/,
];

/** The names of the API server in every cluster. */
const apiServer = /^(https:\/\/)?kubernetes(\.default(\.svc(\.[a-z0-9.-]+)?)?)?(:\d+)?$/;

/** The one spelling of an audience for comparisons with those that are never allowed. */
export const canonicalAudience = (audience: string): string =>
  audience.toLowerCase().replace(/\/+$/, "");

/** Whether a token for this audience is a login at a cloud, or at an API server by its usual name. */
export function isReservedAudience(audience: string): boolean {
  const text = canonicalAudience(audience);
  return apiServer.test(text) || cloudAudiences.some((pattern) => pattern.test(text));
}

const pair =
  /^(?<audience>[\x21-\x2b\x2d-\x3c\x3e-\x7e]{1,512})=(?<host>[a-z0-9][a-z0-9.-]*(:\d{1,5})?)$/;

const wanted =
  "pairs of an audience and the host of a registry, with commas: our-artifactory=artifactory.example.com; " +
  "never an audience of a cloud or of the API server";

/**
 * Parses the pairs of audience and host that the operator allows: `our-audience=artifactory.example.com:8443`, several
 * with commas.
 * @param path of the setting, for problems
 */
export function parseAllowedAudiences(
  text: string,
  path: string,
): Checked<readonly AllowedAudience[]> {
  const { values, problems } = readEntries(splitList(text), readPair, { path, wanted });
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: values };
}

function readPair(entry: string): AllowedAudience | undefined {
  const { audience = "", host = "" } = pair.exec(entry)?.groups ?? {};
  return audience === "" || isReservedAudience(audience) ? undefined : { audience, host };
}
