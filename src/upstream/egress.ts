import type { SecureContext } from "node:tls";
import { LRUCache } from "lru-cache";
import type { Credential } from "../connector/credential.ts";
import type { EgressRules } from "../connector/egress-rules.ts";
import { isWithoutProxy } from "../connector/no-proxy.ts";
import { type AddressGuard, type FindAddresses, lookupAll } from "./address-guard.ts";
import { createEgressLogin } from "./egress-login.ts";
import { EgressError, type EgressProxy, type EgressRoute } from "./http-client/egress-tunnel.ts";
import type { RouteTo } from "./http-client/guarded-dial.ts";

/** The way out of a company's network: its HTTP proxy, and who is reached by it. */
export interface Egress {
  /** The way to a host, by the proxy; undefined where the host is reached directly. @param admit judges the host */
  routeTo(
    hostname: string,
    port: number,
    admit: (find: FindAddresses) => Promise<void>,
  ): EgressRoute | undefined;
}

export interface EgressOptions {
  readonly rules: EgressRules;
  /** Reads the login at the proxy; undefined where there is none. */
  readonly readLogin: () => Promise<Credential | undefined>;
  /** What is trusted where the proxy itself speaks TLS. */
  readonly secureContext: () => SecureContext;
  /** Milliseconds of any clock that does not jump. */
  readonly now: () => number;
}

/** Names that DNS does not know here are not looked up again for so long. */
const unknownNameMs = 60_000;
const maxUnknownNames = 1_000;
const lookupTimeoutMs = 10_000;
/** The same where the proxy may know the name: a resolver may leave names outside of its network without an answer. */
const shortLookupTimeoutMs = 3_000;

/** Creates the way out by a company's proxy. @throws what the first reading of the login throws */
export async function createEgress({
  rules,
  readLogin,
  secureContext,
  now,
}: EgressOptions): Promise<Egress> {
  const { proxy: address, noProxy, resolves } = rules;
  const { origin, host, port, isTls } = address;
  const proxy: EgressProxy = {
    name: origin,
    host,
    port,
    secureContext: isTls ? secureContext() : undefined,
    login: await createEgressLogin({ proxyName: origin, read: readLogin, now }),
  };
  const unknownNames = new LRUCache<string, true>({ max: maxUnknownNames, ttl: unknownNameMs });
  const timeoutMs = resolves ? shortLookupTimeoutMs : lookupTimeoutMs;
  const find: FindAddresses = async (hostname, lookup) => {
    if (unknownNames.has(hostname)) return undefined;
    try {
      return await inTime(lookupAll(lookup, hostname, {}), timeoutMs);
    } catch (cause) {
      if (!resolves) throw unknownName(hostname, cause);
      unknownNames.set(hostname, true);
      return undefined;
    }
  };
  return {
    routeTo: (hostname, port, admit) =>
      isWithoutProxy(noProxy, hostname, port) ? undefined : { proxy, admit: () => admit(find) },
  };
}

/** Rejects where a promise takes longer than a name's look-up should. */
function inTime<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("DNS does not answer")), timeoutMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

function unknownName(hostname: string, cause: unknown): EgressError {
  const message = `DNS here has no address of ${hostname} that could be judged`;
  const advice =
    "where only the egress proxy knows such names, EGRESS_RESOLVES=true (--egress-resolves) has them judged by their names";
  return new EgressError("EGRESS_UNKNOWN_NAME", message, advice, { cause });
}

/** Finds the ways to the hosts of a connector: what its guard allows, directly or by a company's proxy. */
export const createRouteTo =
  (
    { lookupFor, admit }: Pick<AddressGuard, "lookupFor" | "admit">,
    egress: Egress | undefined,
  ): RouteTo =>
  (hostname, port) => {
    const lookup = lookupFor(hostname, port);
    if (lookup instanceof Error) return lookup;
    return egress?.routeTo(hostname, port, (find) => admit(hostname, port, find)) ?? lookup;
  };
