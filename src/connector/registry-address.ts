import { withoutBrackets } from "./host-name.ts";
import { type Checked, show } from "./problem.ts";

/** Where a registry is, as far as requests and image names care. */
export interface RegistryAddress {
  /** `https://harbor.example.com:8443`: scheme, host and, unless it is the scheme's own, port. */
  readonly origin: string;
  readonly scheme: "http" | "https";
  /** Host without port; an IPv6 address without its brackets. */
  readonly hostname: string;
  readonly port: number;
  /** What stands before `/v2/`: empty, or `/artifactory/api/docker/x` without a slash at the end. */
  readonly basePath: string;
  /** The registry's part of an image name: `harbor.example.com:8443`, `docker.io`. */
  readonly imageHost: string;
}

const dockerHub: RegistryAddress = {
  origin: "https://registry-1.docker.io",
  scheme: "https",
  hostname: "registry-1.docker.io",
  port: 443,
  basePath: "",
  imageHost: "docker.io",
};

/** The names under which people know Docker Hub; only the last of them serves the registry API. */
const dockerHubNames: ReadonlySet<string> = new Set([
  "docker.io",
  "www.docker.io",
  "hub.docker.com",
  "index.docker.io",
  "registry.hub.docker.com",
  dockerHub.hostname,
]);

/** A host with its port names a folder, whose name has 255 bytes at most. DNS allows a host 253. */
const maxAuthorityLength = 253;
/** Host names, IPv4 and bracketed IPv6. Narrower than a URL's: what passes is safe in every file that we render. */
const authority =
  /^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*)(:\d{1,5})?$/i;
const pathSegment = /^[A-Za-z0-9_-][A-Za-z0-9._~-]*$/;

export const addressRule =
  "an http:// or https:// URL of a host, with an optional port and base path, and no user, query or fragment";

/** Reads `https://host[:port][/base/path]`. Docker Hub's names all lead to its one API host. */
export function parseRegistryAddress(text: unknown, path: string): Checked<RegistryAddress> {
  const value = typeof text === "string" ? readAddress(text) : undefined;
  if (value !== undefined) return { ok: true, value };
  return { ok: false, problems: [{ path, found: showAddress(text), wanted: addressRule }] };
}

/**
 * An address may carry `user:password@`, put there by mistake, perhaps without a scheme or with a slash
 * in the password: nothing between the scheme and the last `@` is shown, and nothing that is no text.
 */
function showAddress(text: unknown): string {
  if (typeof text === "string") return show(text.replace(/^(https?:\/\/)?.*@/is, "$1…@"));
  return (text ?? undefined) === undefined ? "nothing" : "something that is not text";
}

function readAddress(text: string): RegistryAddress | undefined {
  const match = /^(https?):\/\/([^/]+)(\/.*)?$/i.exec(text);
  const host = match?.[2] ?? "";
  if (host.length > maxAuthorityLength || !authority.test(host)) return undefined;
  const segments = (match?.[3] ?? "").split("/").filter((segment) => segment !== "");
  if (!segments.every((segment) => pathSegment.test(segment))) return undefined;
  const url = URL.parse(`${match?.[1]}://${host}`);
  if (url === null || url.port === "0") return undefined;
  if (dockerHubNames.has(url.host)) return dockerHub;
  const scheme = url.protocol === "http:" ? "http" : "https";
  return {
    origin: url.origin,
    scheme,
    hostname: withoutBrackets(url.hostname),
    port: url.port === "" ? defaultPort(scheme) : Number(url.port),
    basePath: segments.map((segment) => `/${segment}`).join(""),
    imageHost: url.host,
  };
}

const defaultPort = (scheme: "http" | "https"): number => (scheme === "http" ? 80 : 443);

/** The names under which clients ask Docker Hub's registry API: crane says `index.docker.io`. */
const dockerHubOrigins: ReadonlySet<string> = new Set(
  ["registry-1.docker.io", "index.docker.io", "registry.hub.docker.com", "docker.io"].map(
    (host) => `https://${host}`,
  ),
);

/** Whether a client that speaks to this origin (`https://harbor.example.com:8443`) means this registry. */
export const isOriginOf = (origin: string, address: RegistryAddress): boolean =>
  origin === address.origin || (isDockerHub(address) && dockerHubOrigins.has(origin));

export const isDockerHub = (address: RegistryAddress): boolean =>
  address.imageHost === dockerHub.imageHost;

/**
 * The repository as the registry itself calls it. Docker Hub keeps its official images, whose names
 * have one component, under `library/`.
 */
export function upstreamRepository(address: RegistryAddress, repository: string): string {
  return isDockerHub(address) && !repository.includes("/") ? `library/${repository}` : repository;
}
