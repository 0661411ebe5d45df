import { expect } from "chai";
import { parse } from "smol-toml";
import { renderBuildkitd } from "../../src/connector/buildkitd.ts";
import type { ConfigurationSettings } from "../../src/connector/configuration-params.ts";
import {
  listenerHosts,
  type ProxyHostsOf,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";
import { sampleVolume } from "./sample-volume.ts";

const cluster = serviceHosts("cluster.local");
const harbor = "c-harbor.team-a.svc.cluster.local";
const ghcr = "c-ghcr.team-b.svc.cluster.local";
const path = "namespaces/team-a/connectors";

function registries(
  connectors: readonly [string, ...string[]],
  hosts: ProxyHostsOf,
  settings: ConfigurationSettings = {},
): unknown {
  const files = [...renderBuildkitd(sampleVolume(connectors, hosts), settings)];
  expect(files.map(([name]) => name)).to.deep.equal(["buildkitd.toml"]);
  const { registry, ...rest } = parse(files[0]?.[1] ?? "");
  expect(rest).to.deep.equal({ "insecure-entitlements": ["network.host", "security.insecure"] });
  return registry;
}

describe("buildkitd.toml", () => {
  const one = ["team-a/harbor=harbor.example.com"] as const;
  const two = [...one, "team-b/ghcr=ghcr.io"] as const;
  const shared = [
    ...one,
    "team-a/mirror=harbor.example.com",
    "team-a/hub=docker.io",
    "team-a/gone",
  ] as const;
  const both = listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" });

  const cases: readonly [
    claim: string,
    connectors: readonly [string, ...string[]],
    hosts: ProxyHostsOf,
    settings: ConfigurationSettings,
    registry: object,
  ][] = [
    ["uses plain HTTP in a cluster", one, cluster, {}, { [harbor]: { http: true } }],
    ["has every connector", two, cluster, {}, { [harbor]: { http: true }, [ghcr]: { http: true } }],
    [
      "uses TLS where that is wanted, and says so, since loopback counts as plain HTTP otherwise",
      one,
      cluster,
      { scheme: "https" },
      { [harbor]: { http: false } },
    ],
    [
      "finds the CA where it is told how the volume is mounted",
      one,
      cluster,
      { scheme: "https", mountPath: "/run/c" },
      { [harbor]: { http: false, ca: ["/run/c/ca.crt"] } },
    ],
    [
      "needs no CA for plain HTTP",
      one,
      cluster,
      { mountPath: "/run/c" },
      { [harbor]: { http: true } },
    ],
    [
      "has one listener once, for all connectors",
      two,
      listenerHosts({ http: "127.0.0.1:5080" }),
      {},
      { "127.0.0.1:5080": { http: true } },
    ],
    [
      "has a TLS listener",
      one,
      listenerHosts({ https: "[::1]:5443" }),
      { mountPath: "/c" },
      { "[::1]:5443": { http: false, ca: ["/c/ca.crt"] } },
    ],
    [
      "has both listeners",
      one,
      both,
      { mountPath: "/c" },
      { "127.0.0.1:5080": { http: true }, "127.0.0.1:5443": { http: false, ca: ["/c/ca.crt"] } },
    ],
    [
      "serves the registries' own names where mirrors are wanted, in the volume's order",
      shared,
      cluster,
      { mirror: true },
      {
        [harbor]: { http: true },
        "c-mirror.team-a.svc.cluster.local": { http: true },
        "c-hub.team-a.svc.cluster.local": { http: true },
        "c-gone.team-a.svc.cluster.local": { http: true },
        "harbor.example.com": {
          mirrors: [`${harbor}/${path}/harbor`, `c-mirror.team-a.svc.cluster.local/${path}/mirror`],
        },
        "docker.io": { mirrors: [`c-hub.team-a.svc.cluster.local/${path}/hub`] },
      },
    ],
    [
      "points mirrors at the preferred listener",
      one,
      both,
      { mirror: true },
      {
        "127.0.0.1:5080": { http: true },
        "127.0.0.1:5443": { http: false },
        "harbor.example.com": { mirrors: [`127.0.0.1:5443/${path}/harbor`] },
      },
    ],
    [
      "points mirrors at the wanted scheme",
      one,
      both,
      { mirror: true, scheme: "http" },
      {
        "127.0.0.1:5080": { http: true },
        "127.0.0.1:5443": { http: false },
        "harbor.example.com": { mirrors: [`127.0.0.1:5080/${path}/harbor`] },
      },
    ],
  ];
  for (const [claim, connectors, hosts, settings, registry] of cases) {
    it(claim, () => {
      expect(registries(connectors, hosts, settings)).to.deep.equal(registry);
    });
  }
});
