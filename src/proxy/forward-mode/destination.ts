import type { LookupAddress } from "node:dns";
import { once } from "node:events";
import { connect as connectSocket, isIP, type LookupFunction, type Socket } from "node:net";
import { AddressRefused } from "../../upstream/address-guard.ts";
import type { Egress } from "../../upstream/egress.ts";
import { ConnectionError } from "../../upstream/http-client/connection-error.ts";
import {
  EgressError,
  type EgressRoute,
  openTunnel,
} from "../../upstream/http-client/egress-tunnel.ts";
import { connectTimeoutMs } from "../../upstream/upstream.ts";
import { unreachable } from "../../upstream/upstream-error.ts";
import { badGateway, denied, type RegistryError } from "../registry-error.ts";
import type { TunnelPolicy } from "./tunnel-policy.ts";

/** A host outside of the connectors that a client may be connected to. */
export interface Destination {
  readonly hostname: string;
  readonly port: number;
  /** Finds those addresses of the host alone that the policy allows. */
  readonly lookup: LookupFunction;
  /** The way there by a company's proxy; undefined where the host is dialled itself. */
  readonly egress: EgressRoute | undefined;
}

/** How an operator allows a destination that was refused. */
export const tunnelSettingHint =
  "the proxy's tunnel setting (TUNNEL in daemonset/settings.env, --tunnel of standalone) says where clients may go";

/**
 * Checks a host by its name, and by its address where the name is one.
 * @throws RegistryError 403 where the policy allows nobody to go there
 */
export function permitDestination(
  policy: TunnelPolicy,
  egress: Egress | undefined,
  { hostname, port }: Pick<Destination, "hostname" | "port">,
): Destination {
  const allowed = policy.lookupFor(hostname, port);
  if (!allowed.ok) throw denied(allowed.reason, { detail: tunnelSettingHint });
  const route = egress?.routeTo(hostname, port, (find) => policy.admit(hostname, port, find));
  return { hostname, port, lookup: allowed.value, egress: route };
}

/**
 * Resolves the addresses of a destination that the policy allows now.
 * @returns at least one address
 * @throws AddressRefused where there is none, or the error of DNS
 */
export const resolveDestination = ({
  hostname,
  lookup,
}: Destination): Promise<readonly LookupAddress[]> =>
  new Promise((resolve, reject) => {
    lookup(hostname, { all: true }, (error, found) => {
      if (error) reject(error);
      else resolve(typeof found === "string" ? [{ address: found, family: isIP(found) }] : found);
    });
  });

/** Creates a lookup for `net.connect` that always finds these addresses, so that what was checked is what is dialled. */
export const createFixedLookup =
  (addresses: readonly LookupAddress[]): LookupFunction =>
  (_hostname, options, callback) => {
    const [first] = addresses;
    if (options.all || first === undefined) callback(null, [...addresses]);
    else callback(null, first.address, first.family);
  };

/**
 * Connects to a destination at one of the addresses that the policy allows.
 * @param client the connection of the client; its end ends the attempt
 * @throws RegistryError 403 where no address is allowed, 502 where the host can't be reached
 */
export async function connectTo(
  { hostname, port, lookup, egress }: Destination,
  client: Socket,
): Promise<Socket> {
  if (egress !== undefined) return await connectByProxy(egress, { hostname, port }, client);
  const remote = connectSocket({
    host: hostname,
    port,
    lookup,
    allowHalfOpen: true,
    noDelay: true,
  });
  const abortWith = (code: string) => (): void => {
    remote.destroy(Object.assign(new Error("connection attempt ended"), { code }));
  };
  const timer = setTimeout(abortWith("ETIMEDOUT"), connectTimeoutMs);
  const onGone = abortWith("ECONNRESET");
  client.once("close", onGone);
  try {
    await once(remote, "connect");
    return remote;
  } catch (error) {
    throw asConnectError(`${hostname}:${port}`, error);
  } finally {
    clearTimeout(timer);
    client.off("close", onGone);
  }
}

/** @throws RegistryError 403 where the host is not allowed, 502 where the company's proxy opens no tunnel there */
async function connectByProxy(
  egress: EgressRoute,
  target: Pick<Destination, "hostname" | "port">,
  client: Socket,
): Promise<Socket> {
  const gone = new AbortController();
  const onGone = (): void => gone.abort(new ConnectionError("CONNECTION_CLOSED"));
  client.once("close", onGone);
  try {
    const { signal } = gone;
    const options = { timeoutMs: connectTimeoutMs, signal, allowHalfOpen: true };
    return await openTunnel(egress, target, options);
  } catch (error) {
    throw asConnectError(`${target.hostname}:${target.port}`, error);
  } finally {
    client.off("close", onGone);
  }
}

/**
 * The error that a client gets where a host could not be reached: 403 where its address is not allowed, else 502.
 * @param host host and port
 */
export function asConnectError(host: string, error: unknown): RegistryError {
  if (error instanceof AddressRefused) return denied(error.message, { detail: tunnelSettingHint });
  const { message, detail } = unreachable(host, error);
  const isByProxy = error instanceof EgressError; // other advice is about registries
  return badGateway(message, { cause: error, ...(isByProxy && detail ? { detail } : {}) });
}
