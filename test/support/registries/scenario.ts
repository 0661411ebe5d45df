import type { Credential } from "../../../src/connector/credential.ts";
import type { ResolveHost } from "../../../src/upstream/address-guard.ts";
import { type Cleanup, cleanup, type Stoppable } from "../cleanup.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  startFakeRegistry,
} from "../fake-registry.ts";
import { answerTokenRequest } from "../fake-registry-auth.ts";

/** A registry as one of the well-known ones is, under its own name. */
export interface RegistryScenario {
  readonly name: string;
  /** What is peculiar to it, and what its clients have to cope with. */
  readonly peculiarities: readonly string[];
  start(): Promise<RunningRegistry>;
}

export interface RunningRegistry extends Stoppable {
  /** A connector's `spec.address`. */
  readonly address: string;
  /** Where the registry listens, in place of the port that its address means. */
  readonly port?: number;
  readonly credential: Credential;
  readonly params: readonly { readonly name: string; readonly value: string }[];
  readonly caCertificates: readonly string[];
  /** Knows the scenario's hosts, and no other. */
  readonly lookup: ResolveHost;
  readonly registry: FakeRegistry;
  /** Where tokens come from, if that is another host. */
  readonly tokenServer?: FakeRegistry;
  /** Where blobs lie, if that is another host. */
  readonly storage?: FakeRegistry;
  /** How many more manifests may be pulled, if they are counted. */
  readonly budget?: { left: number };
  /** A repository to push to, and one to mount from, as people call them. */
  readonly repository: string;
  readonly other: string;
  /** What it answers to what it need not be able to do. */
  readonly answers: {
    readonly mount: 201 | 202;
    readonly deletes: 202 | 405;
    readonly catalog: 200 | 403;
  };
  stop(): Promise<void>;
}

export interface Hosts extends Cleanup {
  /** Starts a host under its name, over TLS, on a free loopback port. */
  start(hostname: string, options?: FakeRegistryOptions): Promise<FakeRegistry>;
  readonly lookup: ResolveHost;
  /** PEM of the authorities of all of them. */
  caCertificates(): readonly string[];
}

export function namedHosts(): Hosts {
  const resources = cleanup();
  const hosts = new Map<string, FakeRegistry>();
  return {
    ...resources,
    async start(hostname, options) {
      const host = resources.add(await startFakeRegistry({ ...options, hostname, tls: true }));
      hosts.set(hostname, host);
      return host;
    },
    lookup(hostname, _options, callback) {
      const unknown = Object.assign(new Error(hostname), { code: "ENOTFOUND" });
      if (hosts.has(hostname)) callback(null, [{ address: "127.0.0.1", family: 4 }]);
      else callback(unknown, []);
    },
    caCertificates: () => [...hosts.values()].map(({ ca = "" }) => ca),
  };
}

export interface TokenEndpoint {
  /** `/service/token` */
  readonly path: string;
  readonly service: string;
  /** The host that has it; the registry itself, where nothing is said. */
  readonly host?: FakeRegistry;
  /** What the challenge of `GET /v2/` names. */
  readonly pingScope?: string;
}

/** Has a registry send for its tokens to another path, or to another host. */
export function useTokenEndpoint(
  registry: FakeRegistry,
  { path, service, host = registry, pingScope = "" }: TokenEndpoint,
): void {
  const realm = `${host.url}${path}`;
  registry.auth.challenge = ({ scope, error }) =>
    [
      `Bearer realm="${realm}"`,
      `service="${service}"`,
      ...(scope || pingScope ? [`scope="${scope || pingScope}"`] : []),
      ...(error === undefined ? [] : [`error="${error}"`]),
    ].join(",");
  host.on(
    `GET ${path as `/${string}`}`,
    (exchange) => answerTokenRequest(registry.auth, exchange, Date.now()),
    "before auth",
  );
}

/**
 * Storage hosts of clouds are at public addresses, to which every registry may redirect. In tests they are on
 * loopback, so their connectors have to allow them.
 */
export const allowStorage = (storage: FakeRegistry): RunningRegistry["params"] => [
  { name: "allowedRedirectHosts", value: new URL(storage.url).hostname },
];

/** Everything is refused that nobody has created beforehand; registries of clouds make no repository by themselves. */
export function wantExistingRepositories(
  registry: FakeRegistry,
  message: (repository: string) => string,
): void {
  registry.on("* *", ({ target, fail, next }) => {
    const { repository } = target;
    if (repository === "" || registry.repositories.has(repository)) return next();
    return fail(404, "NAME_UNKNOWN", message(repository));
  });
}
