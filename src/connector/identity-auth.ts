/** The part of `spec.auth` that names an identity instead of a Secret: whose it is, and what becomes of it. */
import { type DocumentReader, paramIn } from "./document.ts";
import type { RegistryAddress } from "./registry-address.ts";

/** Where a Connector document applies: in a cluster, or in the folder of standalone mode. */
export type Platform = "cluster" | "standalone";

/** Whose token is taken. */
export type IdentitySource =
  /** A ServiceAccount of the connector's namespace, for which the API server issues a token. */
  | { readonly kind: "serviceAccount"; readonly name: string }
  /** A file with a JWT in the folder of standalone mode's `--token-files`, which something else renews. */
  | { readonly kind: "tokenFile"; readonly name: string };

/** How a token becomes a login at the registry itself. */
export type OidcExchange =
  /** Quay's robot federation. */
  | { readonly preset: "quay"; readonly robot: string }
  /** JFrog's OIDC integration. The user is what the response says, unless one is named. */
  | { readonly preset: "jfrog"; readonly provider: string; readonly username?: string }
  /** A token exchange (RFC 8693) at a path of the registry: a password of the user, or without one a bearer token. */
  | { readonly preset: "rfc8693"; readonly tokenPath: string; readonly username?: string }
  /** The token itself is the password of the user. */
  | { readonly preset: "password"; readonly username: string }
  /** The token itself is the bearer token of every request. */
  | { readonly preset: "bearer" };

/** An identity whose token the registry takes. */
export interface OidcAuth {
  readonly method: "oidcAuth";
  readonly source: IdentitySource;
  readonly exchange: OidcExchange;
  /** For whom the token is; the registry's origin where it is undefined. */
  readonly audience?: string;
}

/** A login that a program of the machine gives, by the protocol of docker's credential helpers. Standalone mode alone has it. */
export interface ExecAuth {
  readonly method: "execAuth";
  /** The program is `docker-credential-<helper>` in the folder of `--credential-helpers`. */
  readonly helper: string;
}

/** How a connector logs in without a Secret. */
export type IdentityAuth = OidcAuth | ExecAuth;

/** The methods of `spec.auth.name` that take an identity, by where they work. */
export const identityMethods: Readonly<Record<Platform, readonly string[]>> = {
  cluster: ["oidcAuth"],
  standalone: ["oidcAuth", "execAuth"],
};

/** Whose login it is, in words: `ServiceAccount team-a/puller`. */
export function identityName(
  { namespace }: { readonly namespace: string },
  auth: IdentityAuth,
): string {
  if (auth.method === "execAuth") return `credential helper ${auth.helper}`;
  const { kind, name } = auth.source;
  return kind === "tokenFile" ? `token file ${name}` : `ServiceAccount ${namespace}/${name}`;
}

const params = "spec.auth.params";

/** The parameters in `spec.auth.params` that say what becomes of an identity. */
export const identityParamNames = [
  "preset",
  "robot",
  "provider",
  "username",
  "tokenPath",
  "audience",
  "tokenFile",
  "helper",
] as const;

type IdentityParamName = (typeof identityParamNames)[number];

/** A ServiceAccount's name is a DNS subdomain (RFC 1123). */
const accountName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
/** The name of a file, without a folder; none that is hidden. */
const fileName = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$/;
/** RFC 7617 leaves a colon out of users; control characters would end a header. */
const userName = /^[^:\p{C}]{1,256}$/u;
const urlPath = /^(\/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,16}$/;
/** An audience is a StringOrURI (RFC 7519, section 2). */
const audienceText = /^[\x21-\x7e]{1,512}$/;

/**
 * Reads how a connector logs in with an identity.
 * @param method one of {@link identityMethods}, of either platform
 * @returns undefined where the document has a problem, which the reader knows then
 */
export function readIdentityAuth(
  reader: DocumentReader,
  method: string,
  { namespace, platform }: { readonly namespace: string | undefined; readonly platform: Platform },
): IdentityAuth | undefined {
  const before = reader.problems.length;
  if (reader.hasObject("spec.auth.secretRef")) {
    reader.refuse("spec.auth.secretRef", `none with ${method}, which takes an identity`);
  }
  const auth =
    method === "execAuth"
      ? readExecAuth(reader, platform)
      : readOidcAuth(reader, namespace, platform);
  return reader.problems.length === before ? auth : undefined;
}

/**
 * What an identity demands of the rest of a spec: a token is sent over TLS alone, and to one origin.
 * @param addressExtensions how many further addresses there are
 */
export function checkIdentityAddress(
  reader: DocumentReader,
  auth: IdentityAuth,
  address: RegistryAddress | undefined,
  addressExtensions: number,
): void {
  if (auth.method === "execAuth") return;
  if (address !== undefined && address.scheme !== "https") {
    reader.refuse("spec.address", `https:// with ${auth.method}, since a token is sent there`);
  }
  if (addressExtensions > 0) {
    const wanted = `none with ${auth.method}, whose login is for the origin of spec.address alone`;
    reader.refuse("spec.addressExtensions", wanted);
  }
}

function readExecAuth(reader: DocumentReader, platform: Platform): ExecAuth | undefined {
  if (platform === "cluster") {
    reader.refuse(
      "spec.auth.name",
      "another method: execAuth runs a program, in standalone mode alone",
    );
    return undefined;
  }
  const wanted =
    "a name such as ecr-login, of the program docker-credential-ecr-login in the folder of --credential-helpers";
  const helper = param(reader, "helper", fileName, wanted, true);
  return helper === undefined ? undefined : { method: "execAuth", helper };
}

function readOidcAuth(
  reader: DocumentReader,
  namespace: string | undefined,
  platform: Platform,
): OidcAuth | undefined {
  const source =
    platform === "cluster" ? readServiceAccount(reader, namespace) : readTokenFile(reader);
  const exchange = readExchange(reader);
  const audience = param(reader, "audience", audienceText, "one audience, as text without spaces");
  if (source === undefined || exchange === undefined) return undefined;
  const auth: OidcAuth = { method: "oidcAuth", source, exchange };
  return audience === undefined ? auth : { ...auth, audience };
}

function readServiceAccount(
  reader: DocumentReader,
  namespace: string | undefined,
): IdentitySource | undefined {
  const file = paramIn(reader.list(params), "tokenFile");
  if (file !== undefined) {
    const wanted =
      "no tokenFile: a file is read in standalone mode alone, here it is serviceAccountRef";
    reader.refuse(`${params}.${file.index}.name`, wanted);
  }
  const path = "spec.auth.serviceAccountRef";
  const owner = reader.text(`${path}.namespace`);
  if (owner !== undefined && owner !== "" && owner !== namespace) {
    reader.refuse(`${path}.namespace`, "nothing, or the Connector's own namespace");
  }
  const name = reader.at(`${path}.name`);
  if (typeof name === "string" && accountName.test(name)) return { kind: "serviceAccount", name };
  reader.refuse(`${path}.name`, "the name of a ServiceAccount in the Connector's own namespace");
  return undefined;
}

function readTokenFile(reader: DocumentReader): IdentitySource | undefined {
  if (reader.hasObject("spec.auth.serviceAccountRef")) {
    const wanted =
      "none: there are no ServiceAccounts in standalone mode, here it is the parameter tokenFile";
    reader.refuse("spec.auth.serviceAccountRef", wanted);
  }
  const wanted = "the name of a file in the folder of --token-files";
  const name = param(reader, "tokenFile", fileName, wanted, true);
  return name === undefined ? undefined : { kind: "tokenFile", name };
}

const userRule = 'a user of at most 256 characters, without ":"';

function readExchange(reader: DocumentReader): OidcExchange | undefined {
  const preset = param(
    reader,
    "preset",
    /^(quay|jfrog|rfc8693|password|bearer)$/,
    "quay, jfrog, rfc8693, password or bearer",
    true,
  );
  const user = (name: IdentityParamName, isRequired: boolean): string | undefined =>
    param(reader, name, userName, userRule, isRequired);
  switch (preset) {
    case "quay": {
      const wanted = "the robot account, such as team+builder";
      const robot = param(reader, "robot", userName, wanted, true);
      return robot === undefined ? undefined : { preset, robot };
    }
    case "jfrog": {
      const wanted = "the name of the OIDC integration at the platform";
      const provider = param(reader, "provider", userName, wanted, true);
      return provider === undefined
        ? undefined
        : withUsername({ preset, provider }, user("username", false));
    }
    case "rfc8693": {
      const wanted = "the path of the token exchange at the registry, such as /oauth2/token";
      const tokenPath = param(reader, "tokenPath", urlPath, wanted, true);
      return tokenPath === undefined
        ? undefined
        : withUsername({ preset, tokenPath }, user("username", false));
    }
    case "password": {
      const username = user("username", true);
      return username === undefined ? undefined : { preset, username };
    }
    case "bearer":
      return { preset };
    default:
      return undefined;
  }
}

const withUsername = <T extends object>(
  exchange: T,
  username: string | undefined,
): T & { readonly username?: string } =>
  username === undefined ? exchange : { ...exchange, username };

/** The text of a parameter; undefined where there is none, or it is wrong, which the reader knows then. */
function param(
  reader: DocumentReader,
  name: IdentityParamName,
  pattern: RegExp,
  wanted: string,
  isRequired = false,
): string | undefined {
  const found = paramIn(reader.list(params), name);
  if (found === undefined || found.value === "") {
    if (isRequired) {
      reader.problems.push({ path: `${params}: ${name}`, found: "nothing", wanted });
    }
    return undefined;
  }
  if (typeof found.value === "string" && pattern.test(found.value)) return found.value;
  reader.refuse(`${params}.${found.index}.value`, wanted);
  return undefined;
}
