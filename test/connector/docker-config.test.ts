import { expect } from "chai";
import { basicCredential, renderDockerConfig } from "../../src/connector/docker-config.ts";
import {
  listenerHosts,
  type ProxyHostsOf,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";
import { sampleToken, sampleVolume } from "./sample-volume.ts";

const connectors = ["team-a/harbor=harbor.example.com", "team-b/ghcr=ghcr.io"] as const;

describe("config.json of Docker", () => {
  const cases: readonly [claim: string, hosts: ProxyHostsOf, keys: readonly string[]][] = [
    [
      "in a cluster has the host of each connector",
      serviceHosts("cluster.local"),
      ["c-harbor.team-a.svc.cluster.local", "c-ghcr.team-b.svc.cluster.local"],
    ],
    ["has the HTTP listener", listenerHosts({ http: "127.0.0.1:5080" }), ["127.0.0.1:5080"]],
    ["has the TLS listener", listenerHosts({ https: "[::1]:5443" }), ["[::1]:5443"]],
    [
      "has both listeners",
      listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" }),
      ["127.0.0.1:5080", "127.0.0.1:5443"],
    ],
  ];
  for (const [claim, hosts, keys] of cases) {
    it(claim, () => {
      const files = [...renderDockerConfig(sampleVolume(connectors, hosts))];
      expect(files.map(([path]) => path)).to.deep.equal(["config.json"]);
      const auth = Buffer.from(`connectors:${sampleToken}`).toString("base64");
      expect(JSON.parse(files[0]?.[1] ?? "")).to.deep.equal({
        auths: Object.fromEntries(keys.map((key) => [key, { auth }])),
      });
    });
  }

  it("has a credential of a user that is not empty, and the token", () => {
    const decoded = Buffer.from(basicCredential(sampleToken), "base64").toString();
    expect(decoded).to.match(/^[a-z]+:/);
    expect(decoded.slice(decoded.indexOf(":") + 1)).to.equal(sampleToken);
  });
});
