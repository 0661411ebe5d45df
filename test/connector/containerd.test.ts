import { expect } from "chai";
import { parse } from "smol-toml";
import type { ConfigurationSettings } from "../../src/connector/configuration-params.ts";
import { renderContainerd } from "../../src/connector/containerd.ts";
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

/** What every entry has, and what some have besides. */
const entry = (more: object = {}) => ({
  capabilities: ["pull", "resolve", "push"],
  header: { authorization: [`Basic ${basicCredential(sampleToken)}`] },
  ...more,
});
const ca = "ca.crt";

describe("certs.d of containerd", () => {
  const one = ["team-a/harbor=harbor.example.com"] as const;
  const shared = [...one, "team-a/other=harbor.example.com", "team-a/gone"] as const;
  const path = (name: string): string => `v2/namespaces/team-a/connectors/${name}`;

  const cases: readonly [
    claim: string,
    connectors: readonly [string, ...string[]],
    hosts: ProxyHostsOf,
    settings: ConfigurationSettings,
    hostsToml: Record<string, Record<string, object>>,
  ][] = [
    [
      "has plain HTTP in a cluster",
      one,
      cluster,
      {},
      { [service("harbor")]: { [`http://${service("harbor")}`]: entry() } },
    ],
    [
      "has TLS where that is wanted",
      one,
      cluster,
      { scheme: "https" },
      { [service("harbor")]: { [`https://${service("harbor")}`]: entry({ ca }) } },
    ],
    [
      "has the CA beside it, wherever the volume is mounted",
      one,
      tls,
      { mountPath: "/c" },
      { "127.0.0.1:5443": { "https://127.0.0.1:5443": entry({ ca }) } },
    ],
    [
      "has the HTTP listener",
      one,
      plain,
      {},
      { "127.0.0.1:5080": { "http://127.0.0.1:5080": entry() } },
    ],
    [
      "has both listeners",
      one,
      both,
      {},
      {
        "127.0.0.1:5080": { "http://127.0.0.1:5080": entry() },
        "127.0.0.1:5443": { "https://127.0.0.1:5443": entry({ ca }) },
      },
    ],
    [
      "has the registries' own names where mirrors are wanted, also for pushes, in the volume's order",
      shared,
      cluster,
      { mirror: true },
      {
        [service("harbor")]: { [`http://${service("harbor")}`]: entry() },
        [service("other")]: { [`http://${service("other")}`]: entry() },
        [service("gone")]: { [`http://${service("gone")}`]: entry() },
        "harbor.example.com": {
          [`http://${service("harbor")}/${path("harbor")}`]: entry({ override_path: true }),
          [`http://${service("other")}/${path("other")}`]: entry({ override_path: true }),
        },
      },
    ],
    [
      "points mirrors at one listener with the CA",
      one,
      both,
      { mirror: true },
      {
        "127.0.0.1:5080": { "http://127.0.0.1:5080": entry() },
        "127.0.0.1:5443": { "https://127.0.0.1:5443": entry({ ca }) },
        "harbor.example.com": {
          [`https://127.0.0.1:5443/${path("harbor")}`]: entry({ ca, override_path: true }),
        },
      },
    ],
  ];
  for (const [claim, connectors, hosts, settings, expected] of cases) {
    it(claim, () => {
      const files = [...renderContainerd(sampleVolume(connectors, hosts), settings)];
      const tomls = files.filter(([name]) => name.endsWith("/hosts.toml"));
      const read = tomls.map(([name, text]) => [name, parse(text)]);
      // The server keeps containerd from the host that an image names, and is asked for nothing itself.
      const wanted = Object.entries(expected).map(([name, entries]) => [
        `certs.d/${name}/hosts.toml`,
        { server: Object.keys(entries)[0], capabilities: ["push"], host: entries },
      ]);
      expect(Object.fromEntries(read)).to.deep.equal(Object.fromEntries(wanted));
      for (const [name, entries] of Object.entries(expected)) {
        const text = new Map(files).get(`certs.d/${name}/hosts.toml`) ?? "";
        const order = Object.keys(entries).map((url) => text.indexOf(`[host."${url}"]`));
        expect(order, "the order in the file").to.deep.equal(order.toSorted((a, b) => a - b));
      }
    });
  }

  const certificates: readonly [claim: string, hosts: ProxyHostsOf, paths: readonly string[]][] = [
    [
      "has the CA of a host that has TLS, and of what it stands for",
      tls,
      ["certs.d/127.0.0.1:5443/ca.crt", "certs.d/harbor.example.com/ca.crt"],
    ],
    ["has no CA of a host without TLS", plain, []],
    [
      "has the CA of a cluster's host, which has both",
      cluster,
      [`certs.d/${service("harbor")}/ca.crt`],
    ],
  ];
  for (const [claim, hosts, paths] of certificates) {
    it(claim, () => {
      const files = new Map(renderContainerd(sampleVolume(one, hosts), { mirror: true }));
      expect([...files.keys()].filter((name) => name.endsWith("/ca.crt"))).to.deep.equal(paths);
      for (const name of paths) expect(files.get(name)).to.equal(sampleAuthority);
    });
  }
});
