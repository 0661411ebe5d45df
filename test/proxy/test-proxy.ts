import { randomBytes } from "node:crypto";
import {
  createAuthority,
  createLeafIssuer,
  type KeyPair,
} from "../../src/certificate-authority.ts";
import { type Connector, parseConnector } from "../../src/connector/connector.ts";
import { showRef } from "../../src/connector/connector-ref.ts";
import type { ClientCertificate, Credential } from "../../src/connector/credential.ts";
import { type Identity, Unavailable, type UpstreamSecrets } from "../../src/connector/platform.ts";
import { createLog } from "../../src/log.ts";
import { type ProxyOptions, startProxy } from "../../src/proxy/proxy.ts";
import type { Stoppable } from "../support/cleanup.ts";

/** The proxy role on loopback, in surroundings that a test sets up by hand. */
export interface TestProxy extends Stoppable {
  /** `127.0.0.1:34567`, plain HTTP. */
  readonly http: string;
  /** The same over TLS, with a certificate by `surroundings.authority`. */
  readonly https: string;
  readonly surroundings: TestSurroundings;
  /** `127.0.0.1:34567/namespaces/team-a/connectors/<name>`: what image names start with. */
  prefix(name: string, scheme?: "http" | "https"): string;
  /** Adds or replaces a connector of the namespace team-a. */
  connect(name: string, address: string, options?: ConnectOptions): Connector;
  /** A token that opens these connectors; all that there are now, where none are named. */
  token(...names: readonly string[]): string;
  /** What the proxy has logged. */
  log(): string;
  /** Ends after `graceMs` at the latest; at once where it is not given. */
  stop(graceMs?: number): Promise<void>;
}

export interface ConnectOptions {
  readonly credential?: Credential;
  readonly caCertificates?: readonly string[];
  readonly clientCertificate?: ClientCertificate;
  readonly params?: readonly { readonly name: string; readonly value: string }[];
  /** Where the registry listens, in place of the port that its address means. */
  readonly port?: number | undefined;
  /** What the Secret says when it is read anew. */
  readonly renewed?: Credential;
}

/** What the proxy asks of the world, and what tests may change in it. */
export interface TestSurroundings {
  readonly authority: KeyPair;
  readonly sealKey: Buffer;
  readonly connectors: Map<string, Connector>;
  /** Connectors whose document is invalid, with what is wrong. */
  readonly invalid: Map<string, string>;
  /** By connector; without an entry a connector's login can't be read. */
  readonly secrets: Map<string, { current: UpstreamSecrets; renewed: UpstreamSecrets }>;
  /** By token. */
  readonly identities: Map<string, Identity>;
  /** `namespace/name` of connectors that nobody has the right to push with. */
  readonly readOnly: Set<string>;
  /** Every reading of a Secret, with whether it was asked for past any cache. */
  readonly secretReads: { readonly connector: string; readonly fresh: boolean }[];
  /** The question that can't be answered now. */
  away: "verifyToken" | "mayUse" | "findConnector" | "readUpstreamSecrets" | undefined;
}

export interface TestProxyOptions
  extends Partial<Omit<ProxyOptions, "sealKeys" | "leafIssuer" | "log">> {
  /** Another proxy, whose surroundings this one shares, as a replica on another node does. */
  readonly replicaOf?: TestProxy;
}

const namespace = "team-a";

export async function startTestProxy({
  replicaOf,
  ...overrides
}: TestProxyOptions = {}): Promise<TestProxy> {
  const surroundings = replicaOf?.surroundings ?? (await createSurroundings());
  const lines: string[] = [];
  const issueLeaf = await createLeafIssuer(surroundings.authority);
  const proxy = await startProxy({
    listen: [
      { scheme: "http", host: "127.0.0.1", port: 0 },
      { scheme: "https", host: "127.0.0.1", port: 0 },
    ],
    leafIssuer: () => issueLeaf,
    sealKeys: () => [surroundings.sealKey],
    log: createLog((line) => lines.push(line), Date.now),
    now: Date.now,
    tunnels: { any: true, hosts: [], domains: [], networks: [], neverNetworks: [] },
    ownAddresses: () => [],
    servesName: (name) => name === "localhost" || name.endsWith(".svc.cluster.local"),
    connectorOfHost: (host) => {
      const [, name] = /^c-([a-z0-9-]+)\.team-a\.svc/.exec(host) ?? [];
      return name === undefined ? undefined : { namespace, name };
    },
    ...answersOf(surroundings),
    ...overrides,
  });
  const hostOf = (scheme: string): string =>
    `127.0.0.1:${proxy.addresses.find((address) => address.scheme === scheme)?.port}`;
  return {
    http: hostOf("http"),
    https: hostOf("https"),
    surroundings,
    prefix: (name, scheme = "http") =>
      `${hostOf(scheme)}/namespaces/${namespace}/connectors/${name}`,
    connect: (name, address, options) => connect(surroundings, name, address, options),
    token: (...names) => addToken(surroundings, names),
    log: () => lines.join(""),
    stop: (graceMs = 0) => proxy.stop(graceMs),
  };
}

async function createSurroundings(): Promise<TestSurroundings> {
  return {
    authority: await createAuthority("test", new Date()),
    sealKey: randomBytes(32),
    connectors: new Map(),
    invalid: new Map(),
    secrets: new Map(),
    identities: new Map(),
    readOnly: new Set(),
    secretReads: [],
    away: undefined,
  };
}

function answersOf(
  surroundings: TestSurroundings,
): Pick<ProxyOptions, "verifyToken" | "mayUse" | "findConnector" | "readUpstreamSecrets"> {
  const { connectors, invalid, secrets, identities, secretReads } = surroundings;
  const mayBeAway = (question: TestSurroundings["away"]): void => {
    if (surroundings.away === question) throw new Unavailable(`${question} is away`);
  };
  return {
    async verifyToken(token) {
      mayBeAway("verifyToken");
      const value = identities.get(token);
      return value === undefined ? { ok: false, reason: "this token is unknown" } : ok(value);
    },
    async mayUse({ user, connectors: opened }, ref, verb) {
      mayBeAway("mayUse");
      const isRefused = verb === "push" && surroundings.readOnly.has(showRef(ref));
      return opened?.includes(showRef(ref)) && !isRefused
        ? ok(undefined)
        : { ok: false, reason: `${user} may not use ${showRef(ref)}` };
    },
    async findConnector(ref) {
      mayBeAway("findConnector");
      const key = showRef(ref);
      const reason = invalid.get(key);
      if (reason !== undefined) return { state: "invalid", reason };
      const connector = connectors.get(key);
      return connector === undefined
        ? { state: "missing", reason: `connector "${key}" not found` }
        : { state: "found", connector };
    },
    async readUpstreamSecrets(connector, { fresh } = { fresh: false }) {
      mayBeAway("readUpstreamSecrets");
      secretReads.push({ connector: connector.name, fresh });
      const entry = secrets.get(connector.name);
      if (entry === undefined) return { ok: false, reason: "there is no Secret" };
      if (fresh) entry.current = entry.renewed;
      return ok(entry.current);
    },
  };
}

const ok = <T>(value: T): { readonly ok: true; readonly value: T } => ({ ok: true, value });

function connect(
  { connectors, secrets }: TestSurroundings,
  name: string,
  address: string,
  {
    credential,
    renewed,
    caCertificates = [],
    clientCertificate,
    params = [],
    port,
  }: ConnectOptions = {},
): Connector {
  const auth = credential && { name: "tokenAuth", secretRef: { name } };
  const parsed = testConnector(name, address, params, auth);
  const connector = port === undefined ? parsed : listeningAt(parsed, port);
  connectors.set(showRef(connector), connector);
  const current = { credential, caCertificates, clientCertificate };
  const later = renewed === undefined ? current : { ...current, credential: renewed };
  secrets.set(name, { current, renewed: later });
  return connector;
}

function listeningAt(connector: Connector, port: number): Connector {
  const { address } = connector;
  return { ...connector, address: { ...address, port, origin: `${address.origin}:${port}` } };
}

function addToken({ connectors, identities }: TestSurroundings, names: readonly string[]): string {
  const token = randomBytes(16).toString("hex");
  const opened = names.length > 0 ? names : [...connectors.values()].map(({ name }) => name);
  identities.set(token, {
    user: `volume:${token.slice(0, 4)}`,
    groups: [],
    subject: `subject of ${token}`,
    connectors: opened.map((name) => `${namespace}/${name}`),
  });
  return token;
}

/** A connector of the namespace team-a, checked as the real ones are. */
export function testConnector(
  name: string,
  address: string,
  params: ConnectOptions["params"] = [],
  auth?: object,
): Connector {
  const parsed = parseConnector({
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name, namespace },
    spec: { connectorClassName: "oci", address, params, auth },
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems));
  return parsed.value;
}
