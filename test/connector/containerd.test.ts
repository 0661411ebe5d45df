import { expect } from "chai";
import { parse } from "smol-toml";
import type { ConfigurationSettings } from "../../src/connector/configuration-params.ts";
import { containerdHosts } from "../../src/connector/containerd.ts";
import { basicCredential } from "../../src/connector/docker-config.ts";
import {
  listenerHosts,
  type ProxyHostsOf,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";
import { sampleAuthority, sampleToken, sampleVolume } from "./sample-volume.ts";

const cluster = serviceHosts("cluster.local");
const plain = listenerHosts({ http: "127.0.0.1:5080" });
const tls = listenerHosts({ https: "127.0.0.1:5443" });
const both = listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" });
const service = (name: string): string => `c-${name}.team-a.svc.cluster.local`;

/** What every host has, and what some have besides. */
const host = (more: object = {}) => ({
  capabilities: ["pull", "resolve", "push"],
  header: { authorization: [`Basic ${basicCredential(sampleToken)}`] },
  ...more,
});

describe("certs.d of containerd", () => {
  const one = ["team-a/harbor=harbor.example.com"] as const;
  const shared = [...one, "team-a/other=harbor.example.com", "team-a/gone"] as const;
  const path = (name: string): string => `v2/namespaces/team-a/connectors/${name}`;

  const cases: readonly [
    claim: string,
    connectors: readonly [string, ...string[]],
    hosts: ProxyHostsOf,
    settings: ConfigurationSettings,
    hostsToml: Record<string, object>,
  ][] = [
    [
      "has plain HTTP in a cluster",
      one,
      cluster,
      {},
      { [service("harbor")]: { [`http://${service("harbor")}`]: host() } },
    ],
    [
      "has TLS where that is wanted, with the CA where it is known where the volume is mounted",
      one,
      cluster,
      { scheme: "https", mountPath: "/c" },
      { [service("harbor")]: { [`https://${service("harbor")}`]: host({ ca: "/c/ca.crt" }) } },
    ],
    [
      "has TLS without the CA where it is not known",
      one,
      tls,
      {},
      { "127.0.0.1:5443": { "https://127.0.0.1:5443": host() } },
    ],
    [
      "has the HTTP listener",
      one,
      plain,
      { mountPath: "/c" },
      { "127.0.0.1:5080": { "http://127.0.0.1:5080": host() } },
    ],
    [
      "has both listeners",
      one,
      both,
      { mountPath: "/c" },
      {
        "127.0.0.1:5080": { "http://127.0.0.1:5080": host() },
        "127.0.0.1:5443": { "https://127.0.0.1:5443": host({ ca: "/c/ca.crt" }) },
      },
    ],
    [
      "has the registries' own names where mirrors are wanted, also for pushes, in the volume's order",
      shared,
      cluster,
      { mirror: true },
      {
        [service("harbor")]: { [`http://${service("harbor")}`]: host() },
        [service("other")]: { [`http://${service("other")}`]: host() },
        [service("gone")]: { [`http://${service("gone")}`]: host() },
        "harbor.example.com": {
          [`http://${service("harbor")}/${path("harbor")}`]: host({ override_path: true }),
          [`http://${service("other")}/${path("other")}`]: host({ override_path: true }),
        },
      },
    ],
    [
      "points mirrors at one listener with the CA",
      one,
      both,
      { mirror: true, mountPath: "/c" },
      {
        "127.0.0.1:5080": { "http://127.0.0.1:5080": host() },
        "127.0.0.1:5443": { "https://127.0.0.1:5443": host({ ca: "/c/ca.crt" }) },
        "harbor.example.com": {
          [`https://127.0.0.1:5443/${path("harbor")}`]: host({
            ca: "/c/ca.crt",
            override_path: true,
          }),
        },
      },
    ],
  ];
  for (const [claim, connectors, hosts, settings, expected] of cases) {
    it(claim, () => {
      const files = [...containerdHosts(sampleVolume(connectors, hosts), settings)];
      const tomls = files.filter(([name]) => name.endsWith("/hosts.toml"));
      const read = tomls.map(([name, text]) => [name, parse(text)]);
      expect(Object.fromEntries(read)).to.deep.equal(
        Object.fromEntries(
          Object.entries(expected).map(([name, entries]) => [
            `certs.d/${name}/hosts.toml`,
            { host: entries },
          ]),
        ),
      );
      for (const [name, entries] of Object.entries(expected)) {
        const text = new Map(files).get(`certs.d/${name}/hosts.toml`) ?? "";
        const order = Object.keys(entries).map((url) => text.indexOf(`"${url}"`));
        expect(order, "the order in the file").to.deep.equal(order.toSorted((a, b) => a - b));
      }
    });
  }

  const certificates: readonly [claim: string, hosts: ProxyHostsOf, paths: readonly string[]][] = [
    ["has the CA of a host that has TLS", tls, ["certs.d/127.0.0.1:5443/ca.crt"]],
    ["has no CA of a host without TLS", plain, []],
    [
      "has the CA of a cluster's host, which has both",
      cluster,
      [`certs.d/${service("harbor")}/ca.crt`],
    ],
  ];
  for (const [claim, hosts, paths] of certificates) {
    it(claim, () => {
      const files = new Map(containerdHosts(sampleVolume(one, hosts), {}));
      expect([...files.keys()].filter((name) => name.endsWith("/ca.crt"))).to.deep.equal(paths);
      for (const name of paths) expect(files.get(name)).to.equal(sampleAuthority);
    });
  }
});
