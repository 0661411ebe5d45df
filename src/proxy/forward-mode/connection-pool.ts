import { Agent, type ClientRequest, type ClientRequestArgs } from "node:http";
import { Agent as HttpsAgent, type RequestOptions as HttpsRequestOptions } from "node:https";
import type { Duplex } from "node:stream";
import type { SecureContext } from "node:tls";

export interface PoolLimits {
  /** Connections that may be kept without a request on them, of all subjects together. */
  readonly maxIdle: number;
  /** The same, of one subject. At least 1. */
  readonly maxIdlePerSubject: number;
  /** Milliseconds that a connection is kept without a request on it. */
  readonly idleTimeoutMs: number;
}

/** Load balancers that drop idle connections wait longer; a server's own `Keep-Alive: timeout` counts where it is shorter. */
export const defaultPoolLimits: PoolLimits = {
  maxIdle: 256,
  maxIdlePerSubject: 16,
  idleTimeoutMs: 15_000,
};

/** Who may use a connection again, and for what. Host and port count as well; Node's agent sees to these. */
export interface PoolKey {
  /** The Pod or volume that has asked for it. */
  readonly subject: string;
  /** All addresses that the policy has let through for it. */
  readonly addresses: readonly string[];
}

/**
 * Agents that keep connections and use them again. A request gets a kept connection only where subject, host name,
 * port, the addresses that were judged fit and the trusted certificates are the same. Requests through them
 * carry {@link PoolKey} as the option `poolKey`.
 */
export interface ConnectionPool {
  readonly http: Agent;
  readonly https: HttpsAgent;
  /** Closes the connections without a request on them at once, and the others after their request. */
  finish(): void;
}

export function createConnectionPool(limits: PoolLimits = defaultPoolLimits): ConnectionPool {
  const idle = new IdleConnections(limits);
  const options = {
    keepAlive: true,
    timeout: limits.idleTimeoutMs,
    // IdleConnections counts.
    maxFreeSockets: Number.POSITIVE_INFINITY,
  };
  return {
    http: new PooledAgent(options, idle),
    https: new PooledHttpsAgent(options, idle),
    finish: () => idle.finish(),
  };
}

/** Connections that wait for a next request, with an owner each. */
class IdleConnections {
  readonly #limits: PoolLimits;
  readonly #subjects = new WeakMap<Duplex, string>();
  /** By subject, the one that has waited longest first. */
  readonly #idle = new Map<string, Set<Duplex>>();
  #count = 0;
  #isFinished = false;

  constructor(limits: PoolLimits) {
    this.#limits = limits;
  }

  /** Says whose a new connection is. */
  setSubject(socket: Duplex, subject: string): void {
    this.#subjects.set(socket, subject);
    socket.once("close", () => this.take(socket));
  }

  /**
   * Takes a connection in, and closes another one where there would be too many: the oldest of the same subject, or
   * of the one that has most. The last one of a subject makes room for nobody else's.
   * @returns whether it may be kept
   */
  keep(socket: Duplex): boolean {
    const subject = this.#subjects.get(socket);
    if (this.#isFinished || subject === undefined) return false;
    const own = this.#idle.get(subject) ?? new Set();
    if (own.size >= this.#limits.maxIdlePerSubject) this.#endOldest(own);
    else if (this.#count >= this.#limits.maxIdle) {
      const most = this.#most();
      if (most.size <= 1 && own.size === 0) return false;
      this.#endOldest(most.size > own.size ? most : own);
    }
    this.#idle.set(subject, own.add(socket));
    this.#count += 1;
    return true;
  }

  /** A request is on it, or it is closed. */
  take(socket: Duplex): void {
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

  #endOldest(own: ReadonlySet<Duplex>): void {
    const [oldest] = own;
    if (oldest === undefined) return;
    this.take(oldest);
    oldest.destroy();
  }

  #most(): ReadonlySet<Duplex> {
    let most: ReadonlySet<Duplex> = new Set();
    for (const own of this.#idle.values()) if (own.size > most.size) most = own;
    return most;
  }
}

interface PooledRequestOptions extends ClientRequestArgs {
  readonly poolKey?: PoolKey;
}

interface PooledHttpsRequestOptions extends HttpsRequestOptions {
  readonly secureContext?: SecureContext | undefined;
  readonly poolKey?: PoolKey;
}

/** One name for a set of addresses, in whatever order DNS has told them. */
const nameOf = ({ subject, addresses }: PoolKey): string =>
  JSON.stringify([subject, addresses.toSorted()]);

class PooledAgent extends Agent {
  readonly #idle: IdleConnections;

  constructor(options: object, idle: IdleConnections) {
    super(options);
    this.#idle = idle;
  }

  override getName(options: PooledRequestOptions = {}): string {
    return super.getName(options) + (options.poolKey === undefined ? "" : nameOf(options.poolKey));
  }

  override createConnection(options: PooledRequestOptions): Duplex | null | undefined {
    const socket = super.createConnection(options);
    if (socket && options.poolKey !== undefined)
      this.#idle.setSubject(socket, options.poolKey.subject);
    return socket;
  }

  override keepSocketAlive(socket: Duplex): boolean {
    // Node's types know nothing of what it returns.
    const isWanted: unknown = super.keepSocketAlive(socket);
    return isWanted === true && this.#idle.keep(socket);
  }

  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    this.#idle.take(socket);
    super.reuseSocket(socket, request);
  }
}

/** The same over TLS. It resumes sessions under the same names. */
class PooledHttpsAgent extends HttpsAgent {
  readonly #idle: IdleConnections;

  constructor(options: object, idle: IdleConnections) {
    super(options);
    this.#idle = idle;
  }

  override getName(options: PooledHttpsRequestOptions = {}): string {
    const { poolKey, secureContext } = options;
    const name = super.getName(options) + (poolKey === undefined ? "" : nameOf(poolKey));
    // Node's own name does not have the certificates that are trusted where they come as a context.
    return `${name}:${secureContext === undefined ? "" : numberOf(secureContext)}`;
  }

  override createConnection(options: PooledHttpsRequestOptions): Duplex | null | undefined {
    const socket = super.createConnection(options);
    if (socket && options.poolKey !== undefined)
      this.#idle.setSubject(socket, options.poolKey.subject);
    return socket;
  }

  override keepSocketAlive(socket: Duplex): boolean {
    const isWanted: unknown = super.keepSocketAlive(socket);
    return isWanted === true && this.#idle.keep(socket);
  }

  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    this.#idle.take(socket);
    super.reuseSocket(socket, request);
  }
}

const contextNumbers = new WeakMap<SecureContext, number>();
let lastContextNumber = 0;

/** Tells contexts apart, without keeping them. */
function numberOf(context: SecureContext): number {
  const known = contextNumbers.get(context);
  if (known !== undefined) return known;
  lastContextNumber += 1;
  contextNumbers.set(context, lastContextNumber);
  return lastContextNumber;
}
