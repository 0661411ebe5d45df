import { isIP } from "node:net";
import { expect } from "chai";
import {
  type AddressGuard,
  AddressRefused,
  createAddressGuard,
  type ResolveHost,
} from "../../src/upstream/address-guard.ts";
import { testConnector } from "../proxy/test-proxy.ts";

/** What names resolve to. */
type Names = Readonly<Record<string, readonly string[]>>;

interface GuardOptions {
  readonly address?: string;
  readonly names?: Names;
  readonly allowedRealmHosts?: string;
  readonly allowedRedirectHosts?: string;
}

describe("the address guard of upstream requests", () => {
  describe("judges hosts that are addresses", () => {
    // As a URL's hostname has them, which knows more ways to write an IPv4 address than people do.
    const foreign: readonly (readonly [string, boolean])[] = [
      ["http://8.8.8.8/", true],
      ["http://[2606:4700::1111]/", true],
      ["http://[::ffff:8.8.8.8]/", true],
      ["http://[64:ff9b::8.8.8.8]/", true],
      ["http://127.0.0.1/", false],
      ["http://127.1/", false],
      ["http://0177.0.0.1/", false],
      ["http://0x7f.1/", false],
      ["http://2130706433/", false],
      ["http://0/", false],
      ["http://0.0.0.0/", false],
      ["http://10.0.0.1/", false],
      ["http://172.16.0.1/", false],
      ["http://192.168.1.1/", false],
      ["http://100.64.0.1/", false],
      ["http://198.18.0.1/", false],
      ["http://240.0.0.1/", false],
      ["http://224.0.0.1/", false],
      ["http://255.255.255.255/", false],
      ["http://169.254.169.254/", false],
      ["http://2852039166/", false],
      ["http://0251.0376.0251.0376/", false],
      ["http://0xa9fea9fe/", false],
      ["http://100.100.100.200/", false],
      ["http://168.63.129.16/", false],
      ["http://[::1]/", false],
      ["http://[::]/", false],
      ["http://[::127.0.0.1]/", false],
      ["http://[::ffff:127.0.0.1]/", false],
      ["http://[::ffff:7f00:1]/", false],
      ["http://[::ffff:0:127.0.0.1]/", false],
      ["http://[64:ff9b::127.0.0.1]/", false],
      ["http://[64:ff9b::a9fe:a9fe]/", false],
      ["http://[64:ff9b:1::a9fe:a9fe]/", false],
      ["http://[2002:7f00:1::]/", false],
      ["http://[2001::1]/", false],
      ["http://[fe80::1]/", false],
      ["http://[fec0::1]/", false],
      ["http://[fd00::1]/", false],
      ["http://[fd00:ec2::254]/", false],
      ["http://[fd00:ec2::23]/", false],
      ["http://192.0.0.192/", false],
      ["http://[fd20:ce::254]/", false],
      ["http://[ff02::1]/", false],
    ];
    for (const [text, passes] of foreign) {
      it(`${text} as a foreign host: ${passes ? "passes" : "does not"}`, () => {
        const guard = guardOf({ address: "https://harbor.test" });
        expect(guard.checkHost(new URL(text)) === undefined).to.equal(passes);
      });
    }

    const own: readonly (readonly [string, boolean])[] = [
      ["127.0.0.1", true],
      ["10.0.0.1", true],
      ["8.8.8.8", true],
      ["[fd00::1]", true],
      ["[::1]", true],
      ["169.254.169.254", false],
      ["169.254.1.1", false],
      ["100.100.100.200", false],
      ["168.63.129.16", false],
      ["0.0.0.0", false],
      ["[::]", false],
      ["[fe80::1]", false],
      ["[fd00:ec2::254]", false],
      ["[fd00:ec2::23]", false],
      ["192.0.0.192", false],
      ["[fd20:ce::254]", false],
      ["[::ffff:169.254.169.254]", false],
      ["[64:ff9b::169.254.169.254]", false],
      ["[64:ff9b:1::169.254.169.254]", false],
    ];
    for (const [host, passes] of own) {
      it(`${host} as the connector's own: ${passes ? "passes" : "does not"}`, () => {
        const guard = guardOf({ address: `http://${host}:5000` });
        expect(isOpen(guard, host)).to.equal(passes);
      });
    }

    it("lets names through, which are judged by what they resolve to", () => {
      expect(isOpen(guardOf(), "anything.test")).to.equal(true);
    });

    it("knows the hosts that the connector allows", () => {
      const guard = guardOf({ allowedRedirectHosts: "10.0.0.7", allowedRealmHosts: "10.0.0.8" });
      expect(isOpen(guard, "10.0.0.7")).to.equal(true);
      expect(isOpen(guard, "10.0.0.8")).to.equal(true);
      expect(isOpen(guard, "10.0.0.9")).to.equal(false);
    });

    it("tells how to allow one", () => {
      expect(guardOf().checkHost(new URL("http://10.0.0.9")))
        .to.have.property("message")
        .that.contains("10.0.0.9")
        .and.contains("private")
        .and.contains("allowedRedirectHosts");
      expect(guardOf().checkHost(new URL("http://169.254.1.1")))
        .to.have.property("message")
        .that.contains("is never connected to");
    });
  });

  describe("looks names up", () => {
    const names: Names = {
      "registry.corp.example.com": ["10.0.0.1"],
      "storage.corp.example.com": ["10.0.0.2"],
      "loopback.corp.example.com": ["127.0.0.1"],
      "mixed.corp.example.com": ["127.0.0.1", "10.0.0.2", "1.1.1.1"],
      "public.corp.example.com": ["1.1.1.1"],
      "elsewhere.example.org": ["10.0.0.3"],
      "rebound.example.org": ["127.0.0.1", "1.1.1.1", "10.0.0.3", "::ffff:10.0.0.3"],
      "metadata.example.org": ["169.254.169.254"],
      "cdn.example.org": ["1.1.1.1", "2606:4700::1111"],
      "empty.example.org": [],
      "registry.example.net": ["1.1.1.1"],
      "storage.example.net": ["10.0.0.4"],
      registry: ["10.0.0.1"],
      storage: ["10.0.0.2"],
    };
    const address = "https://registry.corp.example.com";
    const cases: readonly (readonly [string, string, string, readonly string[] | undefined])[] = [
      ["its own host, inside", address, "registry.corp.example.com", ["10.0.0.1"]],
      ["a public host", address, "cdn.example.org", ["1.1.1.1", "2606:4700::1111"]],
      ["a neighbour inside", address, "storage.corp.example.com", ["10.0.0.2"]],
      ["a neighbour outside", address, "public.corp.example.com", ["1.1.1.1"]],
      ["a neighbour on the node", address, "loopback.corp.example.com", undefined],
      ["a neighbour with several", address, "mixed.corp.example.com", ["10.0.0.2", "1.1.1.1"]],
      ["a stranger inside", address, "elsewhere.example.org", undefined],
      ["a stranger with several", address, "rebound.example.org", ["1.1.1.1"]],
      ["cloud metadata", address, "metadata.example.org", undefined],
      ["nothing", address, "empty.example.org", undefined],
      [
        "an inside neighbour of one outside",
        "https://registry.example.net",
        "storage.example.net",
        undefined,
      ],
      ["a name without dots, that is no neighbour", "https://registry", "storage", undefined],
    ];
    for (const [name, from, hostname, expected] of cases) {
      it(`${name}: ${hostname} gives ${expected ?? "none"}`, async () => {
        const guard = guardOf({ address: from, names });
        const found = await lookUp(guard, hostname, true);
        if (expected === undefined) {
          expect(found).to.be.instanceOf(AddressRefused);
          return;
        }
        const all = expected.map((ip) => ({ address: ip, family: isIP(ip) }));
        expect(found).to.deep.equal(all);
        expect(await lookUp(guard, hostname, false)).to.deep.equal(all[0]);
      });
    }

    it("gives what the connector allows, but for what nobody may", async () => {
      const allowedRedirectHosts = "elsewhere.example.org,metadata.example.org";
      const guard = guardOf({ address, names, allowedRedirectHosts });
      const found = await lookUp(guard, "elsewhere.example.org", true);
      expect(found).to.deep.equal([{ address: "10.0.0.3", family: 4 }]);
      expect(await lookUp(guard, "metadata.example.org", true)).to.be.instanceOf(AddressRefused);
    });

    it("passes the resolver's error on", async () => {
      expect(await lookUp(guardOf({ names: {} }), "nowhere.test", true))
        .to.be.instanceOf(Error)
        .with.property("code", "ENOTFOUND");
    });
  });
});

const isOpen = (guard: AddressGuard, host: string): boolean =>
  guard.checkHost(new URL(`http://${host}`)) === undefined;

function guardOf({
  address = "https://harbor.test",
  names = {},
  ...params
}: GuardOptions = {}): AddressGuard {
  const list = Object.entries(params).map(([name, value]) => ({ name, value }));
  return createAddressGuard(testConnector("r", address, list), resolver(names));
}

const resolver =
  (names: Names): ResolveHost =>
  (hostname, _options, callback) => {
    const found = names[hostname];
    const error = found ? null : Object.assign(new Error("not found"), { code: "ENOTFOUND" });
    const addresses = (found ?? []).map((ip) => ({ address: ip, family: isIP(ip) }));
    setImmediate(() => callback(error, addresses));
  };

const lookUp = (guard: AddressGuard, hostname: string, all: boolean): Promise<unknown> =>
  new Promise((resolve) => {
    const lookup = guard.lookupFor(hostname, 443);
    if (lookup instanceof Error) return resolve(lookup);
    return lookup(hostname, { all }, (error, found, family) =>
      resolve(error ?? (all ? found : { address: found, family })),
    );
  });
