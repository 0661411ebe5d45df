import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { RegistryError } from "./registry-error.ts";

export interface RequestLimits {
  /** Requests of one Pod or volume that may be under way. */
  readonly maxRequestsPerSubject: number;
  /** Connections of one Pod or volume that a CONNECT may have open. An idle one costs some 30 KiB. */
  readonly maxTunnelsPerSubject: number;
  /** Requests through one connector that may be under way. */
  readonly maxRequestsPerConnector: number;
  /** Bytes of manifests that may be held, of all together. */
  readonly maxHeldBytes: number;
}

/** A build of many images uses a few dozen connections; what holds more takes them from its neighbours. */
export const defaultRequestLimits: RequestLimits = {
  maxRequestsPerSubject: 256,
  maxTunnelsPerSubject: 1_024,
  maxRequestsPerConnector: 2_048,
  maxHeldBytes: 64 * 1024 * 1024,
};

/** Keeps one tenant from taking what others need. */
export interface RequestLimiter {
  /**
   * Counts a request until its response is closed.
   * @throws RegistryError 429 where there are too many already
   */
  admit(subject: string, connectorUid: string, response: ServerResponse): void;
  /**
   * Counts a connection that a CONNECT has opened until it is closed.
   * @throws RegistryError 429 where there are too many already
   */
  admitTunnel(subject: string, socket: Socket): void;
  /**
   * @returns a function that counts bytes that are held for a request until its response is closed, and
   *   throws RegistryError 429 where there are too many already
   */
  holdBytesFor(response: ServerResponse): (bytes: number) => void;
}

export function createRequestLimiter(limits: RequestLimits): RequestLimiter {
  const counts = new Map<string, number>();
  let held = 0;
  const count = (key: string, most: number, whose: string, what = "requests"): void => {
    const underWay = counts.get(key) ?? 0;
    if (underWay >= most) throw tooMany(`${underWay} ${what} of this ${whose} are under way`);
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
      let own = 0;
      response.once("close", () => {
        held -= own;
      });
      return (bytes) => {
        if (held + bytes > limits.maxHeldBytes) {
          throw tooMany("too many pushes are sending manifests");
        }
        held += bytes;
        own += bytes;
      };
    },
  };
}

const tooMany = (message: string): RegistryError =>
  new RegistryError(429, "TOOMANYREQUESTS", message, {
    detail: "try again when some of them have finished",
    headers: { "retry-after": "2" },
  });
