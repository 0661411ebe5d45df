import { createHash } from "node:crypto";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { createSecureContext, type SecureContext } from "node:tls";
import { Agent } from "undici";
import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/surroundings.ts";
import { type AddressGuard, createAddressGuard, type ResolveHost } from "./address-guard.ts";
import { BufferBudget } from "./http-client/body-buffers.ts";
import type { SendRequest } from "./http-client/http-exchange.ts";
import { createReadClient, type ReadClient } from "./http-client/read-client.ts";
import { createUndiciSender } from "./http-client/undici-client.ts";
import { trustedRoots } from "./trusted-roots.ts";

/** A registry as it can be asked now: its address, its credential, and the connections to it. */
export interface Upstream {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** Differs where connector, address or credential differ: what may share a token. */
  readonly tokenKey: string;
  /** Sends requests that can be sent again. */
  readonly send: SendRequest;
  /** For what is asked of it beside. */
  readonly dispatcher: Agent;
  /** For uploads. */
  readonly uploadAgent: HttpAgent;
  /** Of the memory that bodies take up while they pass. */
  readonly budget: BufferBudget;
  readonly guard: AddressGuard;
}

export interface Upstreams {
  /** The upstream of a connector; connections are kept until its address, hosts or certificates change. */
  of(connector: Connector, secrets: UpstreamSecrets): Upstream;
  /** Ends all connections; nobody waits for an answer any more. */
  destroy(): Promise<void>;
}

/** Registries send heads of 21 KB (Google's); Node's own limit is 16 KiB. */
export const maxHeaderBytes: number = 64 * 1024;

/** Milliseconds. */
export const connectTimeoutMs = 10_000;
/** Clients give up after 30 s without a head (containerd); we say why before that. */
const headersTimeoutMs = 25_000;
/** Connections are kept this long; a load balancer that drops idle ones waits longer. */
const keepAliveTimeoutMs = 15_000;
const maxConnectors = 512;
/** Bytes that bodies may take up while they pass: 2 MiB for one, and a fair share each for many. */
const bufferBudgetBytes = 4 * 1024 * 1024;

/**
 * @param bodyTimeoutMs milliseconds without a byte after which a body counts as cut
 * @param lookup finds the addresses of registries; the system's, where none is given
 */
export function createUpstreams(bodyTimeoutMs: number, lookup?: ResolveHost): Upstreams {
  const upstreams = new Map<string, Upstream & Connections>();
  const retired = new Set<Connections>();
  const budget = new BufferBudget(bufferBudgetBytes);
  /** Requests that are under way go on, and may still have to ask for a token or to follow a redirect. */
  const retire = (connections: Connections): void => {
    retired.add(connections);
    setTimeout(() => {
      closeIdle(connections.uploadAgent);
      connections.readClient.retire();
      const forget = (): boolean => retired.delete(connections);
      connections.dispatcher.close().then(forget, forget); // it rejects where all was destroyed by then
    }, bodyTimeoutMs).unref();
  };
  const remember = (upstream: Upstream & Connections): Upstream => {
    const { uid } = upstream.connector;
    upstreams.delete(uid);
    upstreams.set(uid, upstream);
    const [oldest] = upstreams.values();
    if (upstreams.size > maxConnectors && oldest !== undefined) {
      upstreams.delete(oldest.connector.uid);
      retire(oldest);
    }
    return upstream;
  };
  return {
    of(connector, secrets) {
      const before = upstreams.get(connector.uid);
      if (before?.connector === connector && isSame(before.secrets, secrets)) return before;
      const key = connectionKey(connector, secrets);
      const keep = before?.connectionKey === key;
      if (before !== undefined && !keep) retire(before);
      const options = { bodyTimeoutMs, lookup, budget };
      const connections = keep ? before : connect(connector, secrets, key, options);
      return remember({
        ...connections,
        connector,
        secrets,
        tokenKey: tokenKey(connector, secrets),
      });
    },
    async destroy() {
      const all = [...upstreams.values(), ...retired];
      for (const { uploadAgent, readClient } of all) {
        uploadAgent.destroy();
        readClient.destroy();
      }
      await Promise.all(all.map(({ dispatcher }) => dispatcher.destroy()));
    },
  };
}

/** Keeps no connection any more; `destroy` would end uploads that are under way. */
function closeIdle(agent: HttpAgent): void {
  agent.maxFreeSockets = 0;
  for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
}

interface Connections
  extends Pick<Upstream, "send" | "dispatcher" | "uploadAgent" | "budget" | "guard"> {
  readonly connectionKey: string;
  readonly readClient: ReadClient;
}

interface ConnectionOptions {
  readonly bodyTimeoutMs: number;
  readonly lookup: ResolveHost | undefined;
  readonly budget: BufferBudget;
}

function connect(
  connector: Connector,
  secrets: UpstreamSecrets,
  key: string,
  { bodyTimeoutMs, lookup: resolver, budget }: ConnectionOptions,
): Connections {
  const guard = createAddressGuard(connector, resolver);
  const secureContext = trust(secrets.caCertificates);
  const { lookup } = guard;
  const dispatcher = new Agent({
    allowH2: false, // its flow control slows pushes, and registries' own clients leave it off (golang/go#14077)
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: headersTimeoutMs,
    bodyTimeout: bodyTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    connect: { timeout: connectTimeoutMs, lookup, secureContext },
  });
  const uploadOptions = { keepAlive: true, timeout: keepAliveTimeoutMs, lookup };
  const uploadAgent =
    connector.address.scheme === "https"
      ? new HttpsAgent({ ...uploadOptions, secureContext })
      : new HttpAgent(uploadOptions);
  const readClient = createReadClient({
    lookup,
    secureContext,
    maxHeaderBytes,
    connectTimeoutMs,
    bodyTimeoutMs,
    keepAliveTimeoutMs,
    budget,
    fallback: createUndiciSender(dispatcher),
  });
  return {
    send: readClient.send,
    readClient,
    dispatcher,
    uploadAgent,
    budget,
    guard,
    connectionKey: key,
  };
}

/** Surroundings may read the same Secrets anew each time. */
const isSame = (one: UpstreamSecrets, other: UpstreamSecrets): boolean =>
  one === other ||
  (one.credential?.username === other.credential?.username &&
    one.credential?.password === other.credential?.password &&
    one.caCertificates.length === other.caCertificates.length &&
    one.caCertificates.every((certificate, index) => certificate === other.caCertificates[index]));

const contexts = new Map<string, WeakRef<SecureContext>>();

/**
 * The system's and Node's own roots, and the connector's. Some 300 certificates take 20 ms to read and
 * 1 MiB to keep, so connectors that trust the same share them.
 */
function trust(caCertificates: readonly string[]): SecureContext {
  const key = caCertificates.join("");
  const shared = contexts.get(key)?.deref();
  if (shared !== undefined) return shared;
  const ca = [...trustedRoots(), ...caCertificates];
  const context = createSecureContext({ ca, minVersion: "TLSv1.2" });
  for (const [other, reference] of contexts) {
    if (reference.deref() === undefined) contexts.delete(other);
  }
  contexts.set(key, new WeakRef(context));
  return context;
}

const connectionKey = (
  { address, addressExtensions, allowedRealmHosts, allowedRedirectHosts }: Connector,
  { caCertificates }: UpstreamSecrets,
): string =>
  JSON.stringify([
    address,
    addressExtensions,
    allowedRealmHosts,
    allowedRedirectHosts,
    caCertificates,
  ]);

/** Without the credential in it, a connector that has none could be served a privileged token (artifact-keeper#3606). */
function tokenKey({ uid, address }: Connector, { credential }: UpstreamSecrets): string {
  const hash = createHash("sha256")
    .update(JSON.stringify(credential ?? null))
    .digest("base64");
  return JSON.stringify([uid, address.origin, hash]);
}
