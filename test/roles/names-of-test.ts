/**
 * Names below `.test` are on this machine, as a DNS server would have it: Go's clients never ask a proxy for a loopback
 * address, so a registry needs a name, and the proxy alone has to know it. It is loaded before everything else, by
 * `node --import=…/names-of-test.ts`.
 */
import dns, { type LookupAddress } from "node:dns";
import { syncBuiltinESMExports } from "node:module";

const lookup = dns.lookup;
type Callback = (error: Error | null, ...found: unknown[]) => void;

dns.lookup = ((hostname: string, options: { all?: boolean } | Callback, callback: Callback) => {
  if (typeof options === "function" || !hostname.endsWith(".test")) {
    (lookup as (...args: unknown[]) => void)(hostname, options, callback);
    return;
  }
  const address: LookupAddress = { address: "127.0.0.1", family: 4 };
  if (options.all) process.nextTick(callback, null, [address]);
  else process.nextTick(callback, null, address.address, address.family);
}) as typeof dns.lookup;
syncBuiltinESMExports();
