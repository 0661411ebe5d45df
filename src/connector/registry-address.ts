import { withoutBrackets } from "./host-name.ts";
import { type Checked, show } from "./problem.ts";

/** The address of a registry, in the parts that requests and image names need. */
export interface RegistryAddress {
  /** `https://harbor.example.com:8443`: scheme, host and, unless it is the scheme's own, port. */
  readonly origin: string;
  readonly scheme: "http" | "https";
  /** Host without port; an IPv6 address without its brackets. */
  readonly hostname: string;
  readonly port: number;
  /** The path before `/v2/`: empty, or `/artifactory/api/docker/x` without a slash at the end. */
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

/** A host with its port is the name of a folder, and so has 255 bytes at most. DNS allows a host 253. */
const maxAuthorityLength = 253;
/** Host names, IPv4 and bracketed IPv6. Narrower than in a URL, so that the host needs no escaping in any file of a volume. */
const authority =
  /^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*)(:\d{1,5})?$/i;
const pathSegment = /^[A-Za-z0-9_-][A-Za-z0-9._~-]*$/;

/** What a registry's address looks like, for messages. */
export const addressRule =
  "an http:// or https:// URL of a host, with an optional port and base path, and no user, query or fragment";

/**
 * Parses `https://host[:port][/base/path]`. All names of Docker Hub lead to its one API host.
 * @param path of the text in its document, for problems
 */
export function parseRegistryAddress(text: unknown, path: string): Checked<RegistryAddress> {
  const value = typeof text === "string" ? readAddress(text) : undefined;
  if (value !== undefined) return { ok: true, value };
  return { ok: false, problems: [{ path, found: showAddress(text), wanted: addressRule }] };
}

/**
 * Formats an invalid address for a message. It may contain `user:password@` by mistake, perhaps without a scheme or
 * with a slash in the password, so nothing between the scheme and the last `@` is shown, and no value other than a text.
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

/** The origins under which clients reach Docker Hub's registry API. crane uses `index.docker.io`. */
const dockerHubOrigins: ReadonlySet<string> = new Set(
  ["registry-1.docker.io", "index.docker.io", "registry.hub.docker.com", "docker.io"].map(
    (host) => `https://${host}`,
  ),
);

/** Whether requests to an origin (`https://harbor.example.com:8443`) are for this registry. */
export const isOriginOf = (origin: string, address: RegistryAddress): boolean =>
  origin === address.origin || (isDockerHub(address) && dockerHubOrigins.has(origin));

/** Whether a host is one of the names under which people know Docker Hub. */
export const isDockerHubName = (host: string): boolean => dockerHubNames.has(host);

/** Whether an address is that of Docker Hub. */
export const isDockerHub = (address: RegistryAddress): boolean =>
  address.imageHost === dockerHub.imageHost;

/**
 * The registry's own name of a repository. Docker Hub keeps its official images, whose names
 * have one component, under `library/`.
 */
export function upstreamRepository(address: RegistryAddress, repository: string): string {
  return isDockerHub(address) && !repository.includes("/") ? `library/${repository}` : repository;
}
