import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { RegistryError } from "./registry-error.ts";

/** How much one tenant may take from its neighbours. */
export interface RequestLimits {
  /** Requests of one Pod or volume that may be under way. */
  readonly maxRequestsPerSubject: number;
  /** Tunnels of one Pod or volume that may be open. An idle one costs some 30 KiB. */
  readonly maxTunnelsPerSubject: number;
  /** Requests through one connector that may be under way. */
  readonly maxRequestsPerConnector: number;
  /** Bytes of manifests that may be held in memory for all pushes together. */
  readonly maxHeldBytes: number;
}

/** The limits of a proxy by default. A build of many images uses a few dozen connections. */
export const defaultRequestLimits: RequestLimits = {
  maxRequestsPerSubject: 256,
  maxTunnelsPerSubject: 1_024,
  maxRequestsPerConnector: 2_048,
  maxHeldBytes: 64 * 1024 * 1024,
};

/** Counts what is under way, and refuses what goes beyond the limits. */
export interface RequestLimiter {
  /**
   * Counts a request until its response is closed.
   * @throws RegistryError 429 where there are too many already
   */
  admit(subject: string, connectorUid: string, response: ServerResponse): void;
  /**
   * Counts a tunnel until its connection is closed.
   * @throws RegistryError 429 where there are too many already
   */
  admitTunnel(subject: string, socket: Socket): void;
  /**
   * Begins to count the bytes that are held in memory for a request, until its response is closed.
   * @returns the function to call with each number of further bytes; it throws RegistryError 429 where too many are
   *   held already
   */
  holdBytesFor(response: ServerResponse): (bytes: number) => void;
}

/** Creates the counters that all listeners of a proxy share. */
export function createRequestLimiter(limits: RequestLimits): RequestLimiter {
  const counts = new Map<string, number>();
  let heldBytes = 0;
  const count = (key: string, max: number, whose: string, what = "requests"): void => {
    const underWay = counts.get(key) ?? 0;
    if (underWay >= max) throw tooMany(`${underWay} ${what} of this ${whose} are under way`);
    counts.set(key, underWay + 1);
  };
  const uncount = (key: string): void => {
    const left = (counts.get(key) ?? 1) - 1;
    if (left > 0) counts.set(key, left);
    else counts.delete(key);
  };
  return {
    admit(subject, connectorUid, response) {
      const own = `subject ${subject}`;
      const shared = `connector ${connectorUid}`;
      count(own, limits.maxRequestsPerSubject, "volume");
      try {
        count(shared, limits.maxRequestsPerConnector, "connector");
      } catch (error) {
        uncount(own);
        throw error;
      }
      response.once("close", () => {
        uncount(own);
        uncount(shared);
      });
    },
    admitTunnel(subject, socket) {
      const key = `tunnels of ${subject}`;
      count(key, limits.maxTunnelsPerSubject, "volume", "connections");
      socket.once("close", () => uncount(key));
    },
    holdBytesFor(response) {
      let ownBytes = 0;
      response.once("close", () => {
        heldBytes -= ownBytes;
      });
      return (bytes) => {
        if (heldBytes + bytes > limits.maxHeldBytes) {
          throw tooMany("too many pushes are sending manifests");
        }
        heldBytes += bytes;
        ownBytes += bytes;
      };
    },
  };
}

const tooMany = (message: string): RegistryError =>
  new RegistryError(429, "TOOMANYREQUESTS", message, {
    detail: "try again when some of them have finished",
    headers: { "retry-after": "2" },
  });
