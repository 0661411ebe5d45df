import { Agent, type ClientRequest, type ClientRequestArgs } from "node:http";
import { Agent as HttpsAgent, type RequestOptions as HttpsRequestOptions } from "node:https";
import type { Duplex } from "node:stream";
import type { SecureContext } from "node:tls";
import type { EgressRoute } from "../../upstream/http-client/egress-tunnel.ts";
import { createByEgress } from "../../upstream/http-client/guarded-dial.ts";
import { connectTimeoutMs } from "../../upstream/upstream.ts";

/** How many idle connections are kept, and for how long. */
export interface PoolLimits {
  /** Idle connections of all subjects together. */
  readonly maxIdle: number;
  /** Idle connections of one subject; at least 1. */
  readonly maxIdlePerSubject: number;
  /** How long a connection may be idle before it is closed. */
  readonly idleTimeoutMs: number;
}

/**
 * The limits of a pool by default. Load balancers that drop idle connections wait longer than this timeout; a server's own
 * `Keep-Alive: timeout` counts where it is shorter.
 */
export const defaultPoolLimits: PoolLimits = {
  maxIdle: 256,
  maxIdlePerSubject: 16,
  idleTimeoutMs: 15_000,
};

/**
 * What two requests must have in common for the second one to use the first one's connection. Node's agent adds host and
 * port, and the pool the trusted certificates.
 */
export interface PoolKey {
  /** The Pod or volume that sends the request. */
  readonly subject: string;
  /** All addresses that the policy allows for its host. */
  readonly addresses: readonly string[];
}

/**
 * Keeps connections to hosts that requests are passed on to, and uses them again where subject, host name, port, allowed
 * addresses and trusted certificates are the same. A request takes one of the two agents, and its {@link PoolKey} as the
 * option `poolKey`.
 */
export interface ConnectionPool {
  readonly http: Agent;
  readonly https: HttpsAgent;
  /** Closes idle connections at once, and each other one after its request. */
  finish(): void;
}

/** Creates an empty pool. */
export function createConnectionPool(limits: PoolLimits = defaultPoolLimits): ConnectionPool {
  const idle = new IdleConnections(limits);
  const options = {
    keepAlive: true,
    timeout: limits.idleTimeoutMs,
    // IdleConnections has the limits.
    maxFreeSockets: Number.POSITIVE_INFINITY,
  };
  return {
    http: new PooledAgent(options, idle),
    https: new PooledHttpsAgent(options, idle),
    finish: () => idle.finish(),
  };
}

/** The connections of a pool that wait for a next request, each of one subject. */
class IdleConnections {
  readonly #limits: PoolLimits;
  readonly #subjects = new WeakMap<Duplex, string>();
  /** The idle connections by subject, the one that has waited longest first. */
  readonly #idle = new Map<string, Set<Duplex>>();
  #count = 0;
  #isFinished = false;

  constructor(limits: PoolLimits) {
    this.#limits = limits;
  }

  /** Sets whose a new connection is. */
  setSubject(socket: Duplex, subject: string): void {
    this.#subjects.set(socket, subject);
    socket.once("close", () => this.remove(socket));
  }

  /**
   * Adds a connection whose request has ended. Where there would be too many, another one is closed: the oldest of the same
   * subject, or else of the subject that has most. The last connection of a subject is not closed for another subject.
   * @returns whether the connection is kept; otherwise the agent closes it
   */
  add(socket: Duplex): boolean {
    const subject = this.#subjects.get(socket);
    if (this.#isFinished || subject === undefined) return false;
    const own = this.#idle.get(subject) ?? new Set();
    if (own.size >= this.#limits.maxIdlePerSubject) this.#closeOldest(own);
    else if (this.#count >= this.#limits.maxIdle) {
      const largest = this.#largestSet();
      if (largest.size <= 1 && own.size === 0) return false;
      this.#closeOldest(largest.size > own.size ? largest : own);
    }
    this.#idle.set(subject, own.add(socket));
    this.#count += 1;
    return true;
  }

  /** Removes a connection that has a request again, or was closed. */
  remove(socket: Duplex): void {
    const subject = this.#subjects.get(socket) ?? "";
    const own = this.#idle.get(subject);
    if (!own?.delete(socket)) return;
    this.#count -= 1;
    if (own.size === 0) this.#idle.delete(subject);
  }

  finish(): void {
    this.#isFinished = true;
    for (const own of this.#idle.values()) for (const socket of own) socket.destroy();
  }

  #closeOldest(own: ReadonlySet<Duplex>): void {
    const [oldest] = own;
    if (oldest === undefined) return;
    this.remove(oldest);
    oldest.destroy();
  }

  /** The connections of the subject that has most. */
  #largestSet(): ReadonlySet<Duplex> {
    let largest: ReadonlySet<Duplex> = new Set();
    for (const own of this.#idle.values()) if (own.size > largest.size) largest = own;
    return largest;
  }
}

/** Options of a request through a pool. */
export interface PooledRequestOptions extends ClientRequestArgs {
  readonly poolKey?: PoolKey;
  /** The way to the host by a company's proxy, where it is not dialled itself. */
  readonly egress?: EgressRoute | undefined;
}

interface PooledHttpsRequestOptions extends HttpsRequestOptions {
  readonly secureContext?: SecureContext | undefined;
  readonly poolKey?: PoolKey;
  readonly egress?: EgressRoute | undefined;
}

type ConnectionCallback = (error: Error | null, socket: Duplex) => void;

interface OwnedConnectionOptions {
  readonly options: PooledRequestOptions;
  readonly callback: ConnectionCallback | undefined;
  /** Connects to the host itself. */
  readonly connect: () => Duplex | null | undefined;
  /** Begins TLS with the host over a tunnel; undefined for plain HTTP. */
  readonly connectTls: ((options: ClientRequestArgs) => Duplex | null | undefined) | undefined;
}

/** Creates a connection to a host, directly or by a company's proxy, and notes whose it is. */
function createOwned(
  idle: IdleConnections,
  { options, callback, connect, connectTls }: OwnedConnectionOptions,
): Duplex | null | undefined {
  const { poolKey, egress } = options;
  const own = (socket: Duplex | null | undefined): void => {
    if (socket && poolKey !== undefined) idle.setSubject(socket, poolKey.subject);
  };
  if (egress === undefined) {
    const socket = connect();
    own(socket);
    return socket;
  }
  const onCreated: ConnectionCallback = (error, socket) => {
    own(socket);
    callback?.(error, socket);
  };
  const timeoutMs = connectTimeoutMs;
  createByEgress(egress, { options, callback: onCreated, connectTls, timeoutMs });
  return undefined;
}

/** The part of an agent's name for a connection that a key makes; the order of the addresses does not count. */
const nameOf = ({ subject, addresses }: PoolKey): string =>
  JSON.stringify([subject, addresses.toSorted()]);

/** The agent for plain HTTP. */
class PooledAgent extends Agent {
  readonly #idle: IdleConnections;

  constructor(options: object, idle: IdleConnections) {
    super(options);
    this.#idle = idle;
  }

  override getName(options: PooledRequestOptions = {}): string {
    return super.getName(options) + (options.poolKey === undefined ? "" : nameOf(options.poolKey));
  }

  override createConnection(
    options: PooledRequestOptions,
    callback?: ConnectionCallback,
  ): Duplex | null | undefined {
    const connect = (): Duplex | null | undefined => super.createConnection(options);
    return createOwned(this.#idle, { options, callback, connect, connectTls: undefined });
  }

  override keepSocketAlive(socket: Duplex): boolean {
    // Node's types do not say that it returns a boolean.
    const isWanted: unknown = super.keepSocketAlive(socket);
    return isWanted === true && this.#idle.add(socket);
  }

  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    this.#idle.remove(socket);
    super.reuseSocket(socket, request);
  }
}

/** The agent for HTTPS. It resumes TLS sessions between requests of the same name. */
class PooledHttpsAgent extends HttpsAgent {
  readonly #idle: IdleConnections;

  constructor(options: object, idle: IdleConnections) {
    super(options);
    this.#idle = idle;
  }

  override getName(options: PooledHttpsRequestOptions = {}): string {
    const { poolKey, secureContext } = options;
    const name = super.getName(options) + (poolKey === undefined ? "" : nameOf(poolKey));
    // Node's own name leaves out a secure context, and so the trusted certificates in it.
    return `${name}:${secureContext === undefined ? "" : numberOf(secureContext)}`;
  }

  override createConnection(
    options: PooledHttpsRequestOptions,
    callback?: ConnectionCallback,
  ): Duplex | null | undefined {
    const connectTls = (given: HttpsRequestOptions): Duplex | null | undefined =>
      super.createConnection(given);
    const connect = (): Duplex | null | undefined => connectTls(options);
    return createOwned(this.#idle, { options, callback, connect, connectTls });
  }

  override keepSocketAlive(socket: Duplex): boolean {
    const isWanted: unknown = super.keepSocketAlive(socket);
    return isWanted === true && this.#idle.add(socket);
  }

  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    this.#idle.remove(socket);
    super.reuseSocket(socket, request);
  }
}

const contextNumbers = new WeakMap<SecureContext, number>();
let lastContextNumber = 0;

/** A number for each context, which does not keep the context in memory. */
function numberOf(context: SecureContext): number {
  const known = contextNumbers.get(context);
  if (known !== undefined) return known;
  lastContextNumber += 1;
  contextNumbers.set(context, lastContextNumber);
  return lastContextNumber;
}
