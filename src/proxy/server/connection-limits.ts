import type { Server } from "node:http";
import type { Socket } from "node:net";
import type { Identity } from "../../connector/platform.ts";
import { maxHeaderBytes } from "../../upstream/upstream.ts";
import type { Sender } from "./fair-turns.ts";

/** How many connections may be open at a listener. */
export interface ConnectionLimits {
  /** Connections of one client address. */
  readonly maxPerAddress: number;
  /** Connections of all addresses together. An idle one costs some 10 KiB. */
  readonly maxInAll: number;
  /** TLS handshakes of one client address that are under way. */
  readonly maxHandshakesPerAddress: number;
  /** Bytes of heads of requests that are not whole yet, of all connections together. */
  readonly maxHeadBytes: number;
}

/** The limits of a listener by default. Behind NAT, and on a CI host, many clients have one address. */
export const defaultConnectionLimits: ConnectionLimits = {
  maxPerAddress: 4_096,
  maxInAll: 16_384,
  maxHandshakesPerAddress: 1_024,
  maxHeadBytes: 32 * 1024 * 1024,
};

/** How often the heads that are not whole are looked at. */
const headsIntervalMs = 250;

/** Why a connection was ended: at which bound, or since its client pipelines requests. `bodies` are of refused requests. */
export type ShedReason = "connections" | "handshakes" | "pipelining" | "bodies" | "heads";

/** Knows whose connections are open, and ends some where there would be too many. */
export interface ConnectionShares {
  /** Notes that a request, or a tunnel, is under way on a connection, or that nothing is. */
  busy(socket: Socket, isBusy: boolean): void;
  /** Who sends the requests of a connection. */
  senderOf(socket: Socket): Sender;
}

interface OpenConnection {
  /** The accepted connection, below TLS. */
  readonly socket: Socket;
  readonly address: string;
  readonly port: number;
  /** For whom a valid token was shown last. */
  subject: string | undefined;
  isBusy: boolean;
  /** What carries HTTP, the TLS inside of the socket where there is some; undefined during the handshake. */
  carrier: Socket | undefined;
  /** Bytes that had been read when the last request was over: what came since is of a head that is not whole. */
  bytesBefore: number;
}

/** The connections of one address, in the order in which they are ended. */
interface AddressConnections {
  /** By the client's port, which tells a connection of an address from its others. */
  readonly open: Map<number, OpenConnection>;
  /** Those whose TLS handshake is under way, the oldest first. */
  readonly inHandshake: Set<OpenConnection>;
  /** Those without an identity, the oldest first. */
  readonly anonymous: Set<OpenConnection>;
  /** Those with an identity on which nothing is under way, the one that has been idle longest first. */
  readonly idle: Set<OpenConnection>;
}

/** What to do once a client has shown a valid token on a connection. */
const onIdentity = new WeakMap<Socket, (subject: string) => void>();

/**
 * Notes for whom a client has shown a valid token on a connection. It then is ended after those where none was shown, and
 * its requests come before theirs.
 */
export function noteIdentity(socket: Socket, { subject }: Pick<Identity, "subject">): void {
  onIdentity.get(socket)?.(subject);
}

/**
 * Keeps strangers from taking all connections of a server. An address alone says little, since many clients may have
 * the same one: at the bound of an address, its oldest connection on which nobody has shown a valid token is ended for
 * the new one; where there is none, the one with a token that has been idle longest. Only where something is under way
 * on all of them for clients with tokens, whom the limits of requests hold, is the new one
 * refused. The bound of all addresses together is kept in the same way, by the address that has most. Call it before
 * the server listens.
 * @param shed is told why a connection was ended
 */
export function limitConnections(
  server: Server,
  limits: ConnectionLimits,
  shed: (reason: ShedReason) => void,
): ConnectionShares {
  const addresses = new Map<string, AddressConnections>();
  const isTls = "setSecureContext" in server;
  let count = 0;

  const remove = (connection: OpenConnection): void => {
    const { address, port } = connection;
    const own = addresses.get(address);
    if (own?.open.get(port) !== connection) return;
    own.open.delete(port);
    for (const set of [own.inHandshake, own.anonymous, own.idle]) set.delete(connection);
    if (own.open.size === 0) addresses.delete(address);
    count -= 1;
  };
  const end = (connection: OpenConnection, reason: ShedReason): void => {
    shed(reason);
    remove(connection); // its `close` comes later, and it must not be chosen twice
    connection.socket.destroy();
  };
  const ofAddress = (address: string): AddressConnections => {
    const own = addresses.get(address) ?? {
      open: new Map(),
      inHandshake: new Set(),
      anonymous: new Set(),
      idle: new Set(),
    };
    addresses.set(address, own);
    return own;
  };
  /** The connection of a socket, which may be the TLS inside of it; undefined once it has ended. */
  const find = ({ remoteAddress = "", remotePort = 0 }: Socket): OpenConnection | undefined =>
    addresses.get(remoteAddress)?.open.get(remotePort);
  const setIdle = (connection: OpenConnection): void => {
    const { idle } = ofAddress(connection.address);
    if (connection.subject !== undefined && !connection.isBusy) idle.add(connection);
    else idle.delete(connection);
  };
  /** Ends the connection of an address that is missed least. @returns whether there was one */
  const endOne = ({ anonymous, idle }: AddressConnections): boolean => {
    const [least] = anonymous.size > 0 ? anonymous : idle;
    if (least !== undefined) end(least, "connections");
    return least !== undefined;
  };
  /** @returns whether a further connection of an address may be open */
  const makeRoom = (address: string): boolean => {
    const own = addresses.get(address);
    if (own !== undefined && own.open.size >= limits.maxPerAddress && !endOne(own)) return false;
    if (count < limits.maxInAll) return true;
    let largest = own;
    for (const other of addresses.values()) {
      if (largest === undefined || other.open.size > largest.open.size) largest = other;
    }
    return largest !== undefined && endOne(largest);
  };
  const limitHandshakes = (own: AddressConnections, connection: OpenConnection): void => {
    const [oldest] = own.inHandshake;
    const isFull = own.inHandshake.size >= limits.maxHandshakesPerAddress;
    own.inHandshake.add(connection);
    if (isFull && oldest !== undefined) end(oldest, "handshakes");
  };
  const identified = (socket: Socket, subject: string): void => {
    const connection = find(socket);
    if (connection === undefined || connection.subject === subject) return;
    connection.subject = subject;
    ofAddress(connection.address).anonymous.delete(connection);
    setIdle(connection);
  };

  /** Ends the connections with the longest heads, where all heads that are not whole take too much. */
  const limitHeads = (): void => {
    const heads = unfinishedHeads(addresses.values());
    let total = heads.reduce((sum, { bytes }) => sum + bytes, 0);
    if (total <= limits.maxHeadBytes) return;
    heads.sort((one, other) => one.bytes - other.bytes);
    while (total > limits.maxHeadBytes) {
      const longest = heads.pop();
      if (longest === undefined) return;
      total -= longest.bytes;
      end(longest.connection, "heads");
    }
  };
  const watch = setInterval(limitHeads, headsIntervalMs).unref();
  server.once("close", () => clearInterval(watch));

  server.prependListener("connection", (socket: Socket) => {
    const { remoteAddress = "", remotePort = 0 } = socket;
    if (!makeRoom(remoteAddress)) {
      shed("connections");
      socket.destroy();
      return;
    }
    const before = addresses.get(remoteAddress)?.open.get(remotePort);
    if (before !== undefined) remove(before); // the port is used again, and its `close` has not come yet
    const connection: OpenConnection = {
      socket,
      address: remoteAddress,
      port: remotePort,
      subject: undefined,
      isBusy: false,
      carrier: undefined,
      bytesBefore: 0,
    };
    const own = ofAddress(remoteAddress);
    own.open.set(remotePort, connection);
    own.anonymous.add(connection);
    count += 1;
    socket.once("close", () => remove(connection));
    if (isTls) limitHandshakes(own, connection);
  });
  server.on(isTls ? "secureConnection" : "connection", (socket: Socket) => {
    const connection = find(socket);
    if (connection === undefined) return;
    ofAddress(connection.address).inHandshake.delete(connection);
    connection.carrier = socket;
    onIdentity.set(socket, (subject) => identified(socket, subject));
  });
  return {
    senderOf(socket) {
      const { subject, address = "" } = find(socket) ?? {};
      return { name: subject ?? address, hasIdentity: subject !== undefined };
    },
    busy(socket, isBusy) {
      const connection = find(socket);
      if (connection === undefined) return;
      connection.isBusy = isBusy;
      connection.bytesBefore = socket.bytesRead;
      setIdle(connection);
    },
  };
}

/** No head is longer: Node refuses it. What comes after a response is the rest of a refused body then. */
const longestHeadBytes = 2 * maxHeaderBytes;

interface UnfinishedHead {
  readonly connection: OpenConnection;
  readonly bytes: number;
}

/** The heads that have begun to come, which are few: nothing is made of the connections without one. */
function unfinishedHeads(addresses: Iterable<AddressConnections>): UnfinishedHead[] {
  const heads: UnfinishedHead[] = [];
  for (const { open } of addresses) {
    for (const connection of open.values()) {
      const bytes = unfinishedHeadBytes(connection);
      if (bytes > 0) heads.push({ connection, bytes });
    }
  }
  return heads;
}

/** What has come of the head of a request on a connection without one that is under way. */
function unfinishedHeadBytes({ isBusy, carrier, bytesBefore }: OpenConnection): number {
  if (isBusy || carrier === undefined) return 0;
  const bytes = carrier.bytesRead - bytesBefore;
  return bytes > longestHeadBytes ? 0 : bytes;
}
