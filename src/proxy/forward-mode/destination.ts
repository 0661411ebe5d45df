import type { LookupAddress } from "node:dns";
import { once } from "node:events";
import { connect as connectSocket, isIP, type LookupFunction, type Socket } from "node:net";
import { AddressRefused } from "../../upstream/address-guard.ts";
import { connectTimeout } from "../../upstream/upstream.ts";
import { unreachable } from "../../upstream/upstream-error.ts";
import { badGateway, denied, type RegistryError } from "../registry-error.ts";
import type { TunnelPolicy } from "./tunnel-policy.ts";

/** Where to connect to, as it was judged. */
export interface Destination {
  readonly hostname: string;
  readonly port: number;
  readonly lookup: LookupFunction;
}

/** How an operator lets somebody go where they may not. */
export const tunnelSettingHint =
  "the proxy's tunnel setting (TUNNEL in daemonset/settings.env, --tunnel of standalone) says where clients may go";

/** @throws RegistryError 403 where nobody may be connected to that host */
export function permitDestination(
  policy: TunnelPolicy,
  hostname: string,
  port: number,
): Destination {
  const allowed = policy.lookupFor(hostname, port);
  if (!allowed.ok) throw denied(allowed.reason, { detail: tunnelSettingHint });
  return { hostname, port, lookup: allowed.value };
}

/**
 * The addresses of a host that may be dialled at this moment; there is one at least.
 * @throws AddressRefused, or the error of DNS
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

/** A lookup for `net.connect` that finds just the addresses that were judged. */
export const createFixedLookup =
  (addresses: readonly LookupAddress[]): LookupFunction =>
  (_hostname, options, callback) => {
    const [first] = addresses;
    if (options.all || first === undefined) callback(null, [...addresses]);
    else callback(null, first.address, first.family);
  };

/**
 * Connects to a host, at one of the addresses that its lookup has found fit.
 * @param client whose end ends the attempt
 * @throws RegistryError 403, 502
 */
export async function connectTo(
  { hostname, port, lookup }: Destination,
  client: Socket,
): Promise<Socket> {
  const remote = connectSocket({
    host: hostname,
    port,
    lookup,
    allowHalfOpen: true,
    noDelay: true,
  });
  const giveUp = (code: string) => (): void => {
    remote.destroy(Object.assign(new Error("given up"), { code }));
  };
  const timer = setTimeout(giveUp("ETIMEDOUT"), connectTimeout);
  const onGone = giveUp("ECONNRESET");
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

/** What a client is told of a host that could not be connected to. */
export function asConnectError(host: string, error: unknown): RegistryError {
  if (error instanceof AddressRefused) return denied(error.message, { detail: tunnelSettingHint });
  return badGateway(unreachable(host, error).message, { cause: error });
}
