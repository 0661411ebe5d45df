import { createHash } from "node:crypto";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { createSecureContext, type SecureContext, setDefaultCACertificates } from "node:tls";
import type { Connector } from "../connector/connector.ts";
import type { ClientCertificate } from "../connector/credential.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { type AddressGuard, createAddressGuard, type ResolveHost } from "./address-guard.ts";
import { createRouteTo, type Egress } from "./egress.ts";
import { BufferBudget } from "./http-client/body-buffers.ts";
import { guardAgent, sendInAbsoluteForm } from "./http-client/guarded-dial.ts";
import type { SendRequest } from "./http-client/http-exchange.ts";
import { createReadClient, type ReadClient } from "./http-client/read-client.ts";
import { delayAgentWriteErrors } from "./http-client/write-errors.ts";
import { SharedCache } from "./shared-cache.ts";
import { trustedRoots } from "./trusted-roots.ts";
import type { UpstreamPolicy } from "./upstream-policy.ts";

/** A registry as requests can be sent to it now: its address, its credential, and the connections to it. */
export interface Upstream {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** Names what may share a token: it differs where connector, address or credential differ. */
  readonly tokenKey: string;
  /** Sends a request that can be sent again, to the registry, its token server or its storage. */
  readonly send: SendRequest;
  /** Keep the connections of uploads, whose bodies stream and can't be sent again, by the scheme of their URL. */
  readonly uploadAgents: { readonly http: HttpAgent; readonly https: HttpAgent };
  /**
   * What is trusted in TLS: the system's and Node's own roots, and the connector's certificates. It has no client
   * certificate, which hosts other than the registry's own are never shown.
   */
  readonly secureContext: SecureContext;
  /** Shares out the memory of bodies that pass, among all upstreams. */
  readonly budget: BufferBudget;
  /** Decides which addresses may be dialled. */
  readonly guard: AddressGuard;
}

/** The upstreams of all connectors. */
export interface Upstreams {
  /**
   * The upstream of a connector. Its connections are kept until its address, hosts or certificates change, or until very
   * many other connectors of its namespace were used since.
   */
  of(connector: Connector, secrets: UpstreamSecrets): Upstream;
  /** Ends all connections. Requests that are under way fail. */
  destroy(): void;
}

/** Registries send heads of 21 KB (Google's); Node's own limit is 16 KiB. */
export const maxHeaderBytes: number = 64 * 1024;

/** How long a host may take to accept a connection, until a request may be written; the same for each step by a company's proxy. */
export const connectTimeoutMs = 10_000;
/**
 * How long a registry may take until the head of its response is whole: a cache that fetches from another registry first
 * takes minutes (zot#4184, harbor#18294). A client that does not want to wait that long goes away, which ends the request.
 */
const defaultHeadersTimeoutMs = 900_000;
/** Connections without a request are kept this long. A load balancer that drops idle ones waits longer. */
const keepAliveTimeoutMs = 15_000;
/** What the connectors of one namespace may take for connections and certificates, and what all of them may. */
const maxBytesPerNamespace = 16 * 1024 * 1024;
const maxBytes = 64 * 1024 * 1024;
/** What a connector takes beside its certificates, without a connection that is open. */
const connectorBytes = 32 * 1024;
/** What a TLS context takes beside the connector's certificates. */
const contextBytes = 48 * 1024;
/** So many bytes a certificate takes for each of its text. */
const bytesPerCharacter = 4;
/** Connectors whose connections are closed later, at most. The oldest ones are closed earlier where there are more. */
const maxRetired = 128;
/** For the bodies that pass: 2 MiB for one, and a fair share each for many. */
const bufferBudgetBytes = 4 * 1024 * 1024;

export interface UpstreamsOptions {
  /** Finds the addresses of registries; the system's, where none is given. */
  readonly lookup?: ResolveHost | undefined;
  /** How long a response may take until its head is whole; 15 minutes unless given. */
  readonly headersTimeoutMs?: number | undefined;
  /** Says which addresses no connector leads to in a cluster; none outside of one. */
  readonly policy?: UpstreamPolicy | undefined;
  /** A company's proxy, by which hosts are reached. */
  readonly egress?: Egress | undefined;
}

/** @param bodyTimeoutMs how long a body may bring no byte before it counts as cut */
export function createUpstreams(bodyTimeoutMs: number, options: UpstreamsOptions = {}): Upstreams {
  const connectionOptions = {
    ...options,
    bodyTimeoutMs,
    budget: new BufferBudget(bufferBudgetBytes),
  };
  /** Connections that are to be closed, the oldest first, each with the timer for that. */
  const retired = new Map<UpstreamConnections, NodeJS.Timeout>();
  /** Connections that close once the requests that are under way have ended. */
  const closing = new Set<UpstreamConnections>();
  const close = (connections: UpstreamConnections): void => {
    clearTimeout(retired.get(connections));
    retired.delete(connections);
    closing.add(connections);
    closeIdle(connections.uploadAgents.http);
    closeIdle(connections.uploadAgents.https);
    connections.readClient.retire(() => closing.delete(connections));
  };
  /** Closes connections later. Requests that are under way go on, and may still have to ask for a token or to follow a redirect. */
  const retire = (connections: UpstreamConnections): void => {
    retired.set(connections, setTimeout(close, bodyTimeoutMs, connections).unref());
    const [oldest] = retired.keys();
    if (retired.size > maxRetired && oldest !== undefined) close(oldest);
  };
  /** By the connector's UID. An upstream that takes another's place often takes its connections, too, so `of` sees to those. */
  const upstreams = new SharedCache<Upstream & UpstreamConnections>({
    maxBytes,
    maxBytesPerOwner: maxBytesPerNamespace,
    sizeBytes: ({ sizeBytes }) => sizeBytes,
    onEvict: retire,
  });
  return {
    of(connector, secrets) {
      const before = upstreams.get(connector.namespace, connector.uid);
      if (before?.connector === connector && isSame(before.secrets, secrets)) return before;
      const key = connectionKey(connector, secrets);
      const keep = before?.connectionKey === key;
      if (before !== undefined && !keep) retire(before);
      const connections = keep ? before : connect(connector, secrets, key, connectionOptions);
      const upstream = {
        ...connections,
        connector,
        secrets,
        tokenKey: tokenKey(connector, secrets),
      };
      upstreams.set(connector.namespace, connector.uid, upstream);
      return upstream;
    },
    destroy() {
      const all = [...upstreams.values(), ...retired.keys(), ...closing];
      for (const { uploadAgents, readClient } of all) {
        uploadAgents.http.destroy();
        uploadAgents.https.destroy();
        readClient.destroy();
      }
    },
  };
}

/** Closes connections without a request, and keeps none any more. `destroy` would end uploads that are under way. */
function closeIdle(agent: HttpAgent): void {
  agent.maxFreeSockets = 0;
  for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
}

/** The part of an upstream that outlives a new credential. */
interface UpstreamConnections
  extends Pick<Upstream, "send" | "uploadAgents" | "secureContext" | "budget" | "guard"> {
  /** Differs where other connections are needed. */
  readonly connectionKey: string;
  readonly readClient: ReadClient;
  /** What it takes of memory, without a connection that is open; a context that others have made does not count. */
  readonly sizeBytes: number;
}

interface ConnectionOptions extends UpstreamsOptions {
  readonly bodyTimeoutMs: number;
  readonly budget: BufferBudget;
}

function connect(
  connector: Connector,
  secrets: UpstreamSecrets,
  key: string,
  {
    bodyTimeoutMs,
    budget,
    lookup,
    headersTimeoutMs = defaultHeadersTimeoutMs,
    policy,
    egress,
  }: ConnectionOptions,
): UpstreamConnections {
  const guard = createAddressGuard(connector, lookup, policy);
  let sizeBytes = connectorBytes;
  const makeContext: typeof createContext = (caCertificates, clientCertificate) => {
    sizeBytes += contextBytes + bytesPerCharacter * caCertificates.join("").length;
    return createContext(caCertificates, clientCertificate);
  };
  const secureContext = sharedContext(secrets.caCertificates, makeContext);
  const ownContext =
    secrets.clientCertificate === undefined
      ? secureContext
      : makeContext(secrets.caCertificates, secrets.clientCertificate);
  const isShownCertificate = clientCertificateHosts(connector);
  const secureContextFor = (hostname: string): SecureContext =>
    isShownCertificate(hostname) ? ownContext : secureContext;
  const routeTo = createRouteTo(guard, egress);
  const uploadOptions = { keepAlive: true, timeout: keepAliveTimeoutMs };
  const guarded = <T extends HttpAgent>(agent: T): T =>
    guardAgent(delayAgentWriteErrors(agent), routeTo, connectTimeoutMs);
  const uploadAgents = {
    http: sendInAbsoluteForm(guarded(new HttpAgent(uploadOptions)), routeTo),
    https: guarded(new HttpsAgent({ ...uploadOptions, secureContext: ownContext })),
  };
  const readClient = createReadClient({
    routeTo,
    secureContextFor,
    maxHeaderBytes,
    connectTimeoutMs,
    headersTimeoutMs,
    bodyTimeoutMs,
    keepAliveTimeoutMs,
    budget,
  });
  return {
    send: readClient.send,
    readClient,
    uploadAgents,
    secureContext,
    budget,
    guard,
    connectionKey: key,
    sizeBytes,
  };
}

/** Whether two readings of a connector's Secrets are the same: surroundings may read them anew each time. */
const isSame = (one: UpstreamSecrets, other: UpstreamSecrets): boolean =>
  one === other ||
  (one.credential?.username === other.credential?.username &&
    one.credential?.password === other.credential?.password &&
    one.credential?.kind === other.credential?.kind &&
    one.clientCertificate?.certificate === other.clientCertificate?.certificate &&
    one.clientCertificate?.privateKey === other.clientCertificate?.privateKey &&
    one.caCertificates.length === other.caCertificates.length &&
    one.caCertificates.every((certificate, index) => certificate === other.caCertificates[index]));

/** By the text of the certificates. No bounded cache: a context is kept by the upstreams that use it, and goes with the last of them. */
const contexts = new Map<string, WeakRef<SecureContext>>();

/**
 * The TLS context that trusts the system's and Node's own roots, and the connector's certificates. Connectors that trust
 * the same share it.
 * @param make makes one where there is none yet
 */
export function sharedContext(
  caCertificates: readonly string[],
  make: (caCertificates: readonly string[]) => SecureContext = createContext,
): SecureContext {
  const key = caCertificates.join("");
  const shared = contexts.get(key)?.deref();
  if (shared !== undefined) return shared;
  const context = make(caCertificates);
  for (const [other, reference] of contexts) {
    if (reference.deref() === undefined) contexts.delete(other);
  }
  contexts.set(key, new WeakRef(context));
  return context;
}

let areRootsSet = false;

/**
 * Makes a TLS context. Reading some 300 roots takes 15 ms, and 1.3 MiB for each context that has read them, so they are
 * read once, as the process's own, and each context only adds its certificates: `createSecureContext` has no option for
 * that, but this is how it adds those of `ca`.
 */
function createContext(
  caCertificates: readonly string[],
  clientCertificate?: ClientCertificate,
): SecureContext {
  if (!areRootsSet) setDefaultCACertificates([...trustedRoots()]);
  areRootsSet = true;
  const secureContext = createSecureContext({
    minVersion: "TLSv1.2",
    // A chain may end at any of them, as with Go's clients: an issuing authority alone is enough, or the server's own certificate.
    allowPartialTrustChain: true,
    ...(clientCertificate === undefined
      ? {}
      : { cert: clientCertificate.certificate, key: clientCertificate.privateKey }),
  });
  const { context } = secureContext as { readonly context: NativeContext };
  for (const certificate of caCertificates) context.addCACert(certificate);
  return secureContext;
}

/** What of Node's own context is used here. */
interface NativeContext {
  /** Trusts a certificate in PEM, too. */
  addCACert(certificate: string): void;
}

/** The hosts that are shown a connector's client certificate: those that the connector itself names for the registry and its token server. */
function clientCertificateHosts({
  address,
  addressExtensions,
  allowedRealmHosts,
}: Connector): (hostname: string) => boolean {
  const hosts = new Set([
    address.hostname,
    ...addressExtensions.map(({ hostname }) => hostname),
    ...allowedRealmHosts,
  ]);
  return (hostname) => hosts.has(hostname);
}

/** Has all that decides where connections go, whom they trust, and what they show. */
const connectionKey = (
  { address, addressExtensions, allowedRealmHosts, allowedRedirectHosts }: Connector,
  { caCertificates, clientCertificate }: UpstreamSecrets,
): string =>
  JSON.stringify([
    address,
    addressExtensions,
    allowedRealmHosts,
    allowedRedirectHosts,
    caCertificates,
    hashOf(clientCertificate),
  ]);

/** Has the credential in it: otherwise a connector that has none could be served a privileged token (artifact-keeper#3606). */
function tokenKey({ uid, address }: Connector, { credential }: UpstreamSecrets): string {
  return JSON.stringify([uid, address.origin, hashOf(credential)]);
}

/** A hash of something secret, which may stand in a key. */
const hashOf = (secret: object | undefined): string =>
  createHash("sha256")
    .update(JSON.stringify(secret ?? null))
    .digest("base64");
