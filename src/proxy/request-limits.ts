import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type Identity, serviceAccountNamespace } from "../connector/platform.ts";
import { ClientGone } from "./client-gone.ts";
import { RegistryError } from "./registry-error.ts";

/**
 * How much one tenant may take from its neighbours. A subject is a Pod or a volume. A tenant has many of them, so its
 * namespace has a share, too; it is smaller than that of a connector, which may be there for several namespaces.
 */
export interface RequestLimits {
  /** Requests of one subject that may be under way. */
  readonly maxRequestsPerSubject: number;
  /** Requests of all Pods of one namespace that may be under way. */
  readonly maxRequestsPerNamespace: number;
  /** Requests through one connector, or to one other host, that may be under way. */
  readonly maxRequestsPerConnector: number;
  /** Tunnels of one subject that may be open. An idle one takes 30 KiB, and one that neither side reads from, 180 KiB. */
  readonly maxTunnelsPerSubject: number;
  /** Tunnels of all Pods of one namespace that may be open. */
  readonly maxTunnelsPerNamespace: number;
  /** Bytes of manifests that may be held in memory for all pushes together. */
  readonly maxHeldBytes: number;
  /** Those of them that may be held for one subject. */
  readonly maxHeldBytesPerSubject: number;
  /** Those of them that may be held for all Pods of one namespace. */
  readonly maxHeldBytesPerNamespace: number;
  /** Those of them that may be held for one connector. */
  readonly maxHeldBytesPerConnector: number;
}

const mebibyte = 1024 * 1024;

/** The limits of a proxy by default. A build of many images uses a few dozen connections. */
export const defaultRequestLimits: RequestLimits = {
  maxRequestsPerSubject: 256,
  maxRequestsPerNamespace: 1_024,
  maxRequestsPerConnector: 2_048,
  maxTunnelsPerSubject: 512,
  maxTunnelsPerNamespace: 1_024,
  maxHeldBytes: 64 * mebibyte,
  maxHeldBytesPerSubject: 16 * mebibyte,
  maxHeldBytesPerNamespace: 24 * mebibyte,
  maxHeldBytesPerConnector: 32 * mebibyte,
};

/** Whose share something is taken from. */
export type Holder = Pick<Identity, "subject" | "user" | "pod">;

/** Counts what is under way, and refuses what goes beyond the limits. */
export interface RequestLimiter {
  /**
   * Counts a request of a subject, and of its namespace, until the response is closed. It comes before all that a
   * request makes others do: a review of rights, a lookup, the rules.
   * @throws RegistryError 429 where there are too many already; ClientGone
   */
  admit(holder: Holder, response: ServerResponse): void;
  /**
   * Counts a request to a destination, once that is known, until the response is closed.
   * @param destination the uid of a connector, or another host with its port
   * @throws RegistryError 429 where there are too many already; ClientGone
   */
  admitTo(destination: string, response: ServerResponse): void;
  /**
   * Counts a tunnel until its connection is closed.
   * @throws RegistryError 429 where there are too many already; ClientGone
   */
  admitTunnel(holder: Holder, socket: Socket): void;
  /**
   * Begins to count the bytes that are held in memory for a request, until its response is closed.
   * @returns the function to call with each number of further bytes; it throws RegistryError 429 where too many are
   *   held already
   */
  holdBytesFor(
    holder: Holder,
    connectorUid: string,
    response: ServerResponse,
  ): (bytes: number) => void;
}

/** A count that may not exceed its share, by the name of who has it. */
interface Share {
  readonly key: string;
  readonly max: number;
  /** What is said where it is used up. */
  readonly complaint: (used: number) => string;
}

/** Creates the counters that all listeners of a proxy share. */
export function createRequestLimiter(limits: RequestLimits): RequestLimiter {
  const used = new Map<string, number>();
  /** Takes an amount from all of these shares, or from none. @throws RegistryError 429 */
  const take = (shares: readonly Share[], amount = 1): void => {
    for (const { key, max, complaint } of shares) {
      const before = used.get(key) ?? 0;
      if (before + amount > max) throw tooMany(complaint(before));
    }
    for (const { key } of shares) used.set(key, (used.get(key) ?? 0) + amount);
  };
  const giveBack = (shares: readonly Share[], amount = 1): void => {
    for (const { key } of shares) {
      const left = (used.get(key) ?? 0) - amount;
      if (left > 0) used.set(key, left);
      else used.delete(key);
    }
  };
  const takeUntilClosed = (shares: readonly Share[], end: ServerResponse | Socket): void => {
    // Its client went away while something else was asked, and `close` will not come again.
    if (end.destroyed) throw new ClientGone("the client closed the connection");
    take(shares);
    end.once("close", () => giveBack(shares));
  };
  return {
    admit(holder, response) {
      const shares = sharesOf(holder, "requests", underWay("requests"), {
        subject: limits.maxRequestsPerSubject,
        namespace: limits.maxRequestsPerNamespace,
      });
      takeUntilClosed(shares, response);
    },
    admitTo(destination, response) {
      const share = {
        key: `requests to ${destination}`,
        max: limits.maxRequestsPerConnector,
        complaint: (count: number) => underWay("requests")(count, "connector"),
      };
      takeUntilClosed([share], response);
    },
    admitTunnel(holder, socket) {
      const shares = sharesOf(holder, "tunnels", underWay("connections"), {
        subject: limits.maxTunnelsPerSubject,
        namespace: limits.maxTunnelsPerNamespace,
      });
      takeUntilClosed(shares, socket);
    },
    holdBytesFor(holder, connectorUid, response) {
      const complaint = (whose: string): string =>
        `too many pushes of this ${whose} are sending manifests`;
      const own = sharesOf(holder, "held", (_bytes, whose) => complaint(whose), {
        subject: limits.maxHeldBytesPerSubject,
        namespace: limits.maxHeldBytesPerNamespace,
      });
      const shares: readonly Share[] = [
        ...own,
        {
          key: `held for ${connectorUid}`,
          max: limits.maxHeldBytesPerConnector,
          complaint: () => complaint("connector"),
        },
        {
          key: "held",
          max: limits.maxHeldBytes,
          complaint: () => "too many pushes are sending manifests",
        },
      ];
      let held = 0;
      let isClosed = response.destroyed;
      response.once("close", () => {
        isClosed = true;
        giveBack(shares, held);
      });
      return (bytes) => {
        if (isClosed) return; // nobody would give them back
        take(shares, bytes);
        held += bytes;
      };
    },
  };
}

const underWay =
  (what: "requests" | "connections") =>
  (count: number, whose: string): string =>
    `${count} ${what} of this ${whose} are under way`;

/** The shares of a subject, and of its namespace where it has one. */
function sharesOf(
  holder: Holder,
  what: string,
  complaint: (used: number, whose: string) => string,
  max: { readonly subject: number; readonly namespace: number },
): readonly Share[] {
  const ofSubject: Share = {
    key: `${what} of subject ${holder.subject}`,
    max: max.subject,
    complaint: (count) => complaint(count, "volume"),
  };
  const namespace = namespaceOf(holder);
  if (namespace === undefined) return [ofSubject];
  const ofNamespace: Share = {
    key: `${what} of namespace ${namespace}`,
    max: max.namespace,
    complaint: (count) => complaint(count, "namespace"),
  };
  return [ofSubject, ofNamespace];
}

/** The namespace of a Pod or a ServiceAccount. A volume of standalone mode has none that its token names. */
export const namespaceOf = ({ pod, user }: Pick<Holder, "pod" | "user">): string | undefined =>
  pod?.namespace ?? serviceAccountNamespace(user);

const tooMany = (message: string): RegistryError =>
  new RegistryError(429, "TOOMANYREQUESTS", message, {
    detail: "try again when some of them have finished",
    headers: { "retry-after": "2" },
  });
