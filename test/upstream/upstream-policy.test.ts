import { isIP } from "node:net";
import { expect } from "chai";
import { parseUpstreamRules } from "../../src/connector/tunnel-rules.ts";
import { createAddressGuard } from "../../src/upstream/address-guard.ts";
import { loopbackNetworks, type UpstreamPolicy } from "../../src/upstream/upstream-policy.ts";
import { testConnector } from "../proxy/test-proxy.ts";

/** What is near a Pod at 10.244.0.7 on the node 192.168.7.1, whose cluster has its API server at 192.168.7.9. */
function policyOf(list = ""): UpstreamPolicy {
  const rules = parseUpstreamRules(list, "UPSTREAM_NETWORKS");
  if (!rules.ok) throw new Error(JSON.stringify(rules.problems));
  return {
    rules: rules.value,
    nearAddresses: () => ({
      pod: [...loopbackNetworks, "10.244.0.7", "fd00:10:244::7"],
      node: ["192.168.7.1", "203.0.113.1", "fd00:7::1"],
      apiServer: [
        { address: "10.96.0.1", ports: [] },
        { address: "192.168.7.9", ports: [6443] },
        { address: "203.0.113.9", ports: [6443] },
      ],
    }),
  };
}

/** The message of the refusal, with the host named wherever a Connector can name it; undefined where it is open. */
function refusalOf(url: string, policy: UpstreamPolicy): string | undefined {
  const hostname = new URL(url).hostname.replace(/^\[|\]$/g, "");
  const value = isIP(hostname) === 6 ? "storage.test" : hostname; // params take no IPv6 address
  const connector = testConnector("it", url, [
    { name: "allowedRedirectHosts", value },
    { name: "allowedRealmHosts", value },
  ]);
  return createAddressGuard(connector, undefined, policy).checkHost(new URL(url))?.message;
}

describe("the policy of a cluster for its connectors", () => {
  const closed: readonly (readonly [string, string])[] = [
    ["http://127.0.0.1:5000", "this Pod"],
    ["http://127.1:9809", "this Pod"],
    ["http://0177.0.0.1:9809", "this Pod"],
    ["http://0x7f.1:9809", "this Pod"],
    ["http://2130706433:9809", "this Pod"],
    ["http://127.255.255.254:9809", "this Pod"],
    ["http://[::1]:9809", "this Pod"],
    ["http://[::ffff:127.0.0.1]:9809", "this Pod"],
    ["http://[::ffff:7f00:1]:9809", "this Pod"],
    ["http://[::127.0.0.1]:9809", "this Pod"],
    ["http://[::ffff:0:127.0.0.1]:9809", "this Pod"],
    ["http://[64:ff9b::127.0.0.1]:9809", "this Pod"],
    ["http://[2002:7f00:1::]:9809", "this Pod"],
    ["http://10.244.0.7", "this Pod"],
    ["http://[::ffff:10.244.0.7]:8080", "this Pod"],
    ["http://[fd00:10:244:0:0::7]", "this Pod"],
    ["http://10.96.0.1", "API server"],
    ["https://192.168.7.9:6443", "API server"],
    ["https://[64:ff9b::c0a8:709]:6443", "API server"],
    ["https://203.0.113.9:6443", "API server"],
    ["https://192.168.7.1:10250", "kubelet"],
    ["https://203.0.113.1:10250", "kubelet"],
    ["https://192.168.7.9:10250", "kubelet"],
    ["https://192.168.7.77:10250", "kubelet"],
    ["http://192.168.7.1:10255", "kubelet"],
    ["http://192.168.7.1:9809", "this product"],
    ["http://[fd00:7::1]:9808", "this product"],
    ["http://169.254.169.254", "never connected to"],
    ["http://[2002:a9fe:a9fe::]", "never connected to"],
    ["http://[::ffff:0:169.254.169.254]", "never connected to"],
    ["http://169.254.170.23", "never connected to"],
    ["http://[fd00:ec2::254]", "metadata"],
    ["http://[fd00:ec2::23]", "metadata"],
    ["http://192.0.0.192", "metadata"],
    ["http://[64:ff9b::192.0.0.192]", "metadata"],
    ["http://0.0.0.0:9809", "never connected to"],
    ["http://[::]:9809", "never connected to"],
  ];
  for (const [url, expected] of closed) {
    const { href } = new URL(url);
    it(`closes ${url} whatever the Connector says`, () => {
      const message = refusalOf(href, policyOf());
      if (expected !== "metadata") expect(message).to.contain(expected);
      else expect(message).to.contain("(metadata)").and.contain("never connected to");
    });
  }

  const open: readonly string[] = [
    "http://10.0.0.5:5000",
    "http://192.168.7.1:30500",
    "http://[fd00:7::1]:5000",
    "https://192.168.7.9:5000",
    "http://10.244.0.8:9809",
    "https://8.8.8.8:10250",
  ];
  for (const url of open) {
    it(`leaves ${url} open`, () => {
      expect(refusalOf(url, policyOf())).to.equal(undefined);
    });
  }

  it("opens a host that the operator names, at its port alone", () => {
    const policy = policyOf("127.0.0.1:5000, 192.168.7.1:8443, 169.254.20.10");
    expect(refusalOf("http://127.0.0.1:5000", policy)).to.equal(undefined);
    expect(refusalOf("http://127.0.0.1:9809", policy)).to.contain("this Pod");
    expect(refusalOf("https://192.168.7.1:8443", policy)).to.equal(undefined);
    expect(refusalOf("http://169.254.20.10", policy)).to.equal(undefined);
  });

  it("closes a network, and not a host in it that the operator names", () => {
    const policy = policyOf("!10.0.0.0/8, 10.0.0.5, !2001:db8::/32");
    expect(refusalOf("http://10.0.0.5:5000", policy)).to.equal(undefined);
    expect(refusalOf("http://10.0.0.6:5000", policy)).to.contain("the operator has closed");
    expect(refusalOf("http://[::ffff:10.0.0.6]:5000", policy)).to.contain("has closed");
    expect(refusalOf("http://[2001:db8::1]", policy)).to.contain("the operator has closed");
  });

  it("lets registries refer to a network that the operator names, and conceals nothing there", () => {
    const connector = testConnector("it", "http://10.1.0.1");
    const guard = createAddressGuard(connector, undefined, policyOf("10.1.0.0/16, !10.1.9.0/24"));
    const check = (url: string) => guard.checkHost(new URL(url));
    expect(check("http://10.1.0.2")).to.equal(undefined);
    expect(guard.isConcealed(new URL("https://10.1.0.2"))).to.equal(false);
    expect(check("http://10.1.9.2")?.message).to.contain("has closed");
    expect(check("http://10.2.0.2")?.message).to.contain("allowedRedirectHosts");
    expect(guard.isConcealed(new URL("https://10.2.0.2"))).to.equal(true);
    expect(check("http://8.8.8.8")).to.equal(undefined);
    expect(guard.isConcealed(new URL("https://8.8.8.8"))).to.equal(false);
  });

  it("judges each address of a name, at the port that is dialled", async () => {
    const addresses = ["192.168.7.1", "127.0.0.1", "169.254.169.254", "10.96.0.1", "10.0.0.5"];
    const all = addresses.map((address) => ({ address, family: isIP(address) }));
    const guard = createAddressGuard(
      testConnector("it", "http://many.test"),
      (_hostname, _options, callback) => callback(null, all),
      policyOf(),
    );
    const found = (port: number): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const lookup = guard.lookupFor("many.test", port);
        if (lookup instanceof Error) reject(lookup);
        else lookup("many.test", { all: true }, (error, list) => resolve(error ?? list));
      });
    const listOf = (...expected: readonly string[]) =>
      all.filter(({ address }) => expected.includes(address));
    expect(await found(5000)).to.deep.equal(listOf("192.168.7.1", "10.0.0.5"));
    expect(await found(9809)).to.deep.equal(listOf("10.0.0.5"));
  });
});

describe("the operator's list for connectors", () => {
  it("has hosts and networks", () => {
    expect(
      parseUpstreamRules("Registry.corp:5000, 10.1.0.0/16,!fd00::/8", "UPSTREAM_NETWORKS"),
    ).to.deep.equal({
      ok: true,
      value: {
        hosts: [{ host: "registry.corp", port: 5000 }],
        networks: ["10.1.0.0/16"],
        neverNetworks: ["fd00::/8"],
      },
    });
    expect(parseUpstreamRules(" ", "UPSTREAM_NETWORKS")).to.deep.equal({
      ok: true,
      value: { hosts: [], networks: [], neverNetworks: [] },
    });
  });

  for (const wrong of ["tunnel", "refuse", "*.example.com", "10.1.0.0/33", "!host", "a b", ","]) {
    it(`has no ${JSON.stringify(wrong)}`, () => {
      const parsed = parseUpstreamRules(`10.0.0.0/8,${wrong}`, "UPSTREAM_NETWORKS");
      expect(parsed.ok).to.equal(false);
      expect(JSON.stringify(parsed)).to.contain("UPSTREAM_NETWORKS").and.contain("!10.96.0.0/12");
    });
  }
});
