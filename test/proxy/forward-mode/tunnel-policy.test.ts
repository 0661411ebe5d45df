import type { LookupAddress } from "node:dns";
import { expect } from "chai";
import { parseTunnelRules } from "../../../src/connector/tunnel-rules.ts";
import { createTunnelPolicy } from "../../../src/proxy/forward-mode/tunnel-policy.ts";

/** What names resolve to. */
type Names = Readonly<Record<string, readonly string[]>>;

const names: Names = {
  "public.com": ["8.8.8.8", "2606:4700::1111"],
  "sub.public.com": ["8.8.4.4"],
  "inside.com": ["10.1.2.3"],
  "loop.com": ["127.0.0.1"],
  "mixed.com": ["127.0.0.1", "8.8.8.8", "169.254.169.254"],
  "metadata.com": ["169.254.169.254"],
  "near.com": ["203.0.113.7"],
  "api.com": ["203.0.113.8"],
  "mapped.com": ["::ffff:203.0.113.7"],
  "pods.com": ["198.51.100.9"],
};
const own = ["203.0.113.7", "203.0.113.8", "::1"];

/** The addresses that would be dialled, or why there are none. */
async function judge(
  setting: string,
  host: string,
  port = 443,
): Promise<readonly string[] | string> {
  const rules = parseTunnelRules(setting, "TUNNEL");
  if (!rules.ok) throw new Error(JSON.stringify(rules.problems));
  const policy = createTunnelPolicy({
    rules: rules.value,
    ownAddresses: () => own,
    lookup: (name, _options, callback) =>
      callback(
        null,
        (names[name] ?? []).map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      ),
  });
  const answer = policy.lookupFor(host, port);
  if (!answer.ok) return answer.reason;
  return new Promise((resolve) => {
    answer.value(host, { all: true }, (error, found) => {
      if (error !== null) resolve(error.message);
      else resolve((found as LookupAddress[]).map(({ address }) => address));
    });
  });
}

describe("createTunnelPolicy(): where tunnels may lead", () => {
  const cases: readonly [setting: string, host: string, expected: readonly string[] | RegExp][] = [
    ["tunnel", "public.com", ["8.8.8.8", "2606:4700::1111"]],
    ["tunnel", "8.8.8.8", ["8.8.8.8"]],
    ["tunnel", "mixed.com", ["8.8.8.8"]],
    ["tunnel", "unknown.com", /unknown.com has no address/],
    ["tunnel", "inside.com", /inside.com is at 10.1.2.3, an internal address \(private\)/],
    ["tunnel", "loop.com", /an internal address \(loopback\)/],
    ["tunnel", "metadata.com", /an address \(linkLocal\) that is never connected to/],
    ["tunnel", "near.com", /an address of this machine/],
    ["tunnel", "api.com", /or of the cluster's API server/],
    ["tunnel", "mapped.com", /an address of this machine/],
    ["tunnel", "::ffff:203.0.113.7", /an address of this machine/],
    ["tunnel", "64:ff9b::cb00:7107", /an address of this machine/],
    ["tunnel,!8.8.8.0/24", "public.com", ["2606:4700::1111"]],
    ["tunnel,!8.8.4.0/24", "sub.public.com", /in a network that is closed/],
    ["tunnel,!8.8.4.0/24,sub.public.com", "sub.public.com", ["8.8.4.4"]],
    ["tunnel,10.1.0.0/16", "inside.com", ["10.1.2.3"]],
    ["tunnel,10.0.0.0/8,!10.1.0.0/16", "inside.com", /in a network that is closed/],
    ["tunnel,127.0.0.0/8", "loop.com", ["127.0.0.1"]],
    ["tunnel,169.254.0.0/16", "metadata.com", /never connected to/],
    ["tunnel,203.0.113.0/24", "near.com", /an address of this machine/],
    ["tunnel,near.com", "near.com", ["203.0.113.7"]],
    ["tunnel,loop.com", "loop.com", ["127.0.0.1"]],
    ["tunnel,metadata.com", "metadata.com", /never connected to/],
    ["tunnel,169.254.169.254", "169.254.169.254", ["169.254.169.254"]],
    ["refuse", "public.com", /public.com:443 is not among the hosts that are allowed/],
    ["refuse", "8.8.8.8", /not among the hosts that are allowed/],
    ["public.com", "public.com", ["8.8.8.8", "2606:4700::1111"]],
    ["public.com:80", "public.com", /public.com:443 is not among/],
    ["public.com", "sub.public.com", /not among/],
    ["*.public.com", "sub.public.com", ["8.8.4.4"]],
    ["*.public.com", "public.com", /not among/],
    ["*.com", "inside.com", /an internal address/],
    ["tunnel,!198.51.100.0/24", "pods.com", /in a network that is closed/],
    ["10.1.0.0/16", "inside.com", ["10.1.2.3"]],
    ["10.1.0.0/16", "public.com", /not among the hosts that are allowed/],
  ];
  for (const [setting, host, expected] of cases) {
    it(`"${setting}" ${expected instanceof RegExp ? "does not let anybody go" : "lets people go"} to ${host}`, async () => {
      const found = await judge(setting, host);
      if (expected instanceof RegExp) expect(found).to.be.a("string").and.match(expected);
      else expect(found).to.deep.equal(expected);
    });
  }
});
