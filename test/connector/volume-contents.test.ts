import { expect } from "chai";
import {
  listenerHosts,
  type ProxyHostsOf,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";
import { mirrorsByImageHost, toolHostsOf } from "../../src/connector/volume-contents.ts";
import { sampleVolume } from "./sample-volume.ts";

const cluster = serviceHosts("cluster.local");
const both = listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" });
const plain = listenerHosts({ http: "127.0.0.1:5080" });

describe("the hosts that a tool is told of", () => {
  const connectors = ["team-a/harbor=harbor.example.com", "team-b/ghcr=ghcr.io"] as const;
  const cases: readonly [string, ProxyHostsOf, "http" | "https" | undefined, readonly string[]][] =
    [
      [
        "in a cluster are one for each connector, on HTTP",
        cluster,
        undefined,
        ["http://c-harbor.team-a.svc.cluster.local", "http://c-ghcr.team-b.svc.cluster.local"],
      ],
      [
        "in a cluster are on TLS where that is wanted",
        cluster,
        "https",
        ["https://c-harbor.team-a.svc.cluster.local", "https://c-ghcr.team-b.svc.cluster.local"],
      ],
      [
        "on one machine are those of the listeners, each once",
        both,
        undefined,
        ["http://127.0.0.1:5080", "https://127.0.0.1:5443"],
      ],
      [
        "on one machine stay the same whatever is wanted, since each port has its scheme",
        both,
        "http",
        ["http://127.0.0.1:5080", "https://127.0.0.1:5443"],
      ],
      [
        "are on the scheme there is where another one is wanted",
        plain,
        "https",
        ["http://127.0.0.1:5080"],
      ],
    ];
  for (const [claim, hosts, scheme, expected] of cases) {
    it(claim, () => {
      const found = toolHostsOf(sampleVolume(connectors, hosts).connectors, scheme);
      expect(found.map(({ host, tls }) => `${tls ? "https" : "http"}://${host}`)).to.have.members(
        expected,
      );
    });
  }
});

describe("the mirrors of a registry's own name", () => {
  const connectors = [
    "team-a/harbor=harbor.example.com",
    "team-b/other=harbor.example.com",
    "team-a/gone",
    "team-a/hub=docker.io",
  ] as unknown as readonly [string];

  const mirrors = (hosts: ProxyHostsOf, scheme?: "http" | "https") =>
    [...mirrorsByImageHost(sampleVolume(connectors, hosts).connectors, scheme)].map(
      ([imageHost, all]) => [imageHost, ...all.map(({ ref, host, tls }) => [ref.name, host, tls])],
    );

  it("are the connectors that lead to it, in the volume's order, without those that are gone", () => {
    expect(mirrors(cluster)).to.deep.equal([
      [
        "harbor.example.com",
        ["harbor", "c-harbor.team-a.svc.cluster.local", false],
        ["other", "c-other.team-b.svc.cluster.local", false],
      ],
      ["docker.io", ["hub", "c-hub.team-a.svc.cluster.local", false]],
    ]);
  });

  for (const [scheme, host, tls] of [
    ["http", "127.0.0.1:5080", false],
    ["https", "127.0.0.1:5443", true],
    [undefined, "127.0.0.1:5443", true],
  ] as const) {
    it(`are asked on ${scheme ?? "the preferred scheme"} where that is wanted`, () => {
      expect(mirrors(both, scheme).at(-1)).to.deep.equal(["docker.io", ["hub", host, tls]]);
    });
  }
});
