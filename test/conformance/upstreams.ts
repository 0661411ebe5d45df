import { builtProgram } from "../clients/client-programs.ts";
import { cleanup, type Stoppable } from "../support/cleanup.ts";
import { type DockerRegistryOptions, startDockerRegistry } from "../support/docker-registry.ts";
import { type FakeRegistryOptions, startFakeRegistry } from "../support/fake-registry.ts";
import type { Features } from "../support/fake-registry-features.ts";
import type { LocationStyle } from "../support/fake-registry-uploads.ts";
import { startProgram } from "../support/program.ts";
import type { Login } from "./peer.ts";
import type { Strictness } from "./talk.ts";

/** A kind of registry, and how the proxy before it is asked. */
export interface UpstreamKind {
  /** What its column is called. */
  readonly name: string;
  readonly description: string;
  /** What is to be expected of it: all that the specification has, what it allows, or anything. */
  readonly strictness: Strictness;
  /** How clients come to the proxy. */
  readonly scheme: "http" | "https";
  /** Whether clients use the connector's own host, and names without a prefix. */
  readonly isShort: boolean;
  /** Undefined where its program is not on this machine. */
  readonly start: (() => Promise<RunningUpstream>) | undefined;
}

export interface RunningUpstream extends Stoppable {
  /** With its base path. */
  readonly url: string;
  readonly host: string;
  readonly ca: string | undefined;
  readonly login: Login | undefined;
}

/** What everybody may do in a repository, with a token: `read-only/…` is for reading alone. */
const rightsIn = (name: string, actions: readonly string[]): readonly string[] =>
  name.startsWith("read-only/") ? actions.filter((action) => action === "pull") : actions;

async function startDocker(options: DockerRegistryOptions): Promise<RunningUpstream> {
  const registry = await startDockerRegistry(options);
  const { tokens, url, host, tls, stop } = registry;
  if (tokens) {
    tokens.rights = (user, { name, actions }) =>
      user === undefined ? [] : rightsIn(name, actions);
  }
  const login = options.auth === "none" ? undefined : registry;
  return { url, host, ca: tls?.ca, login, stop };
}

interface FakeOptions extends FakeRegistryOptions {
  readonly uploadLocation: LocationStyle;
  readonly features?: Partial<Features>;
}

async function startFake(options: FakeOptions): Promise<RunningUpstream> {
  const password = "secret-of-alice";
  const registry = await startFakeRegistry({ ...options, users: { alice: password } });
  registry.uploadLocation = options.uploadLocation;
  Object.assign(registry.features, options.features);
  registry.auth.rights = (user, { name, actions }) =>
    user === undefined ? [] : rightsIn(name, actions);
  const { host, ca, stop } = registry;
  const url = registry.url + (options.basePath ?? "");
  const login = options.auth === "none" ? undefined : { username: "alice", password };
  return { url, host, ca, login, stop };
}

async function startInMemory(program: string): Promise<RunningUpstream> {
  const resources = cleanup();
  const running = resources.add(await startProgram(program, []));
  const [, host = ""] = await running.waitFor(/listening on (\S+)/);
  return { url: `http://${host}`, host, ca: undefined, login: undefined, stop: resources.stop };
}

const distribution = builtProgram("registry");
const inMemory = builtProgram("oci-registry");
const plain = { strictness: "allowed", scheme: "http", isShort: false } as const;

export const upstreamKinds: readonly UpstreamKind[] = [
  {
    ...plain,
    name: "2.8 tokens",
    description: "docker-registry 2.8, with a token server",
    start: () => startDocker({ auth: "token" }),
  },
  {
    ...plain,
    name: "2.8 htpasswd",
    description: "docker-registry 2.8, with Basic, over TLS on either side",
    scheme: "https",
    start: () => startDocker({ auth: "htpasswd", tls: true }),
  },
  {
    ...plain,
    name: "2.8 open",
    description: "docker-registry 2.8, open to everybody, which deletes nothing",
    start: () => startDocker({ auth: "none", deletes: false }),
  },
  {
    ...plain,
    name: "3 tokens",
    description: "distribution 3, with a token server",
    start:
      distribution === undefined
        ? undefined
        : () => startDocker({ auth: "token", program: distribution }),
  },
  {
    ...plain,
    name: "ocimem",
    strictness: "any",
    description: "the registry in memory of cuelabs.dev/go/oci, open to everybody",
    start: inMemory === undefined ? undefined : () => startInMemory(inMemory),
  },
  {
    ...plain,
    name: "1.1 tokens",
    description:
      "a strict registry of this project's tests with everything that 1.1 has, with tokens; its Locations are absolute and carry a state",
    strictness: "complete",
    start: () =>
      startFake({
        auth: "bearer",
        uploadLocation: "state",
        features: { referrersPage: 2, smallestChunk: 1000 },
      }),
  },
  {
    ...plain,
    name: "1.1 Basic",
    description:
      "the same with Basic, over TLS on either side, asked on the connector's own host; its upload URLs lack the repository",
    strictness: "complete",
    scheme: "https",
    isShort: true,
    start: () => startFake({ auth: "basic", tls: true, uploadLocation: "gar" }),
  },
  {
    ...plain,
    name: "1.0",
    description: "the same without what is optional or new in 1.1, below a base path",
    start: () =>
      startFake({
        auth: "bearer",
        basePath: "/artifactory/api/docker/x",
        uploadLocation: "relative",
        features: {
          referrers: false,
          deletes: false,
          singlePost: false,
          anonymousMounts: false,
          tagParameters: false,
        },
      }),
  },
];
