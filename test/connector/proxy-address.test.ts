import { expect } from "chai";
import {
  connectorPath,
  imagePrefix,
  listenerHosts,
  type ProxyHosts,
  preferredHost,
  proxyUrl,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";

const harbor = { namespace: "team-a", name: "harbor" };

describe("the proxy's address", () => {
  const path = "namespaces/team-a/connectors/harbor";
  const service = "c-harbor.team-a.svc.cluster.local";
  const cases: readonly [claim: string, hosts: ProxyHosts, url: string][] = [
    [
      "in a cluster is the connector's Service, on the port of HTTP",
      serviceHosts("cluster.local")(harbor),
      `http://${service}/${path}`,
    ],
    [
      "has the domain of the cluster",
      serviceHosts("k8s.example.com")(harbor),
      `http://c-harbor.team-a.svc.k8s.example.com/${path}`,
    ],
    [
      "on one machine is the listener",
      listenerHosts({ http: "127.0.0.1:5080" })(harbor),
      `http://127.0.0.1:5080/${path}`,
    ],
    [
      "on one machine with TLS is the TLS listener",
      listenerHosts({ https: "[::1]:5443" })(harbor),
      `https://[::1]:5443/${path}`,
    ],
    [
      "prefers TLS where a machine has both",
      listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" })(harbor),
      `https://127.0.0.1:5443/${path}`,
    ],
  ];
  for (const [claim, hosts, url] of cases) {
    it(claim, () => {
      expect(proxyUrl(harbor, hosts)).to.equal(url);
    });
  }

  it("in a cluster serves both schemes under one name", () => {
    const { http, https } = serviceHosts("cluster.local")(harbor);
    expect([http, https]).to.deep.equal([service, service]);
  });

  it("is the same host for all connectors of a listener: the path tells them apart", () => {
    const hosts = listenerHosts({ http: "127.0.0.1:5080" });
    expect(hosts(harbor)).to.deep.equal(hosts({ namespace: "team-b", name: "ghcr" }));
  });

  it("makes the first part of an image's name", () => {
    expect(imagePrefix(harbor, service)).to.equal(`${service}/${connectorPath(harbor)}`);
  });

  it("can't be told of a proxy that does not listen", () => {
    expect(() => preferredHost(listenerHosts({})(harbor))).to.throw("the proxy has no http host");
  });
});
