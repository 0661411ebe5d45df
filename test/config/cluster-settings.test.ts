import { readFileSync } from "node:fs";
import { expect } from "chai";
import {
  readControllerSettings,
  readCsiSettings,
  readProxySettings,
} from "../../src/config/cluster-settings.ts";
import { isWithoutProxy } from "../../src/connector/no-proxy.ts";

/** daemonset/settings.env, as a Pod gets it. */
const shipped = Object.fromEntries(
  readFileSync(new URL("../../daemonset/settings.env", import.meta.url), "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
);
const pod = { POD_NAMESPACE: "connectors-system", NODE_NAME: "node-1", POD_NAME: "controller-1" };

describe("the settings of a role in a cluster", () => {
  it("are those that are shipped", () => {
    const environment = { ...shipped, ...pod };
    expect(readCsiSettings(environment)).to.deep.equal({
      ok: true,
      value: {
        namespace: "connectors-system",
        audience: "connectors-proxy",
        clusterDomain: "cluster.local",
        nodeName: "node-1",
        pluginFolder: "/var/lib/kubelet/plugins/connectors-csi",
        registrationFolder: "/var/lib/kubelet/plugins_registry",
        noProxy: ["localhost", "127.0.0.1", "::1", ".svc", ".cluster.local"],
        requireProxyVerb: false,
        defaultPermission: "none",
        startupTaint: "",
      },
    });
    expect(readProxySettings(environment)).to.deep.include({ ok: true });
    expect(readControllerSettings(environment)).to.deep.include({ ok: true });
  });

  it("take what an operator adds", () => {
    const environment = {
      ...shipped,
      ...pod,
      NO_PROXY_HOSTS: "registry.internal,10.0.0.0/8",
      SEPARATE_PUSH: "true",
      DEFAULT_PERMISSION: "namespace",
      TUNNEL: "tunnel,git.internal",
      TOKEN_GRACE: "1h30m",
      NODE_IMAGE_HOSTS: "harbor.example.com:8443,*.example.com",
      NODE_IMAGES_WITHOUT_CONNECTOR: "anonymous",
      NODE_IPS: "192.0.2.7,2001:db8::7",
      KUBERNETES_SERVICE_HOST: "10.96.0.1",
    };
    const csi = readCsiSettings(environment);
    expect(csi.ok && csi.value.noProxy.slice(-2)).to.deep.equal([
      "registry.internal",
      "10.0.0.0/8",
    ]);
    expect(csi.ok && csi.value.defaultPermission).to.equal("namespace");
    const proxy = readProxySettings(environment);
    expect(proxy.ok && proxy.value).to.deep.include({
      separatePush: true,
      defaultPermission: "namespace",
      tunnels: {
        any: true,
        domains: [],
        networks: [],
        neverNetworks: [],
        hosts: [{ host: "git.internal", port: undefined }],
      },
      tokenGraceMs: 5_400_000,
      imageHosts: new Set(["harbor.example.com:8443", "*.example.com"]),
      imagesWithoutConnector: "anonymous",
      upstreams: { hosts: [], networks: [], neverNetworks: [] },
      nodeAddresses: ["192.0.2.7", "2001:db8::7"],
      apiServiceAddresses: ["10.96.0.1"],
    });
  });

  it("have a company's proxy, past which the cluster's own hosts are reached", () => {
    const environment = {
      ...shipped,
      ...pod,
      CLUSTER_DOMAIN: "kube.corp",
      EGRESS_PROXY: "http://proxy.corp:3128",
      EGRESS_NO_PROXY: "harbor.corp",
      EGRESS_RESOLVES: "true",
      EGRESS_LOGIN: "/etc/login",
    };
    for (const read of [readProxySettings(environment), readControllerSettings(environment)]) {
      const egress = read.ok ? read.value.egress : undefined;
      expect(egress).to.deep.include({ resolves: true, loginPath: "/etc/login" });
      expect(egress?.proxy.origin).to.equal("http://proxy.corp:3128");
      const hosts = ["c-x.team-a.svc.kube.corp", "c-x.team-a.svc", "harbor.corp", "x.corp"];
      expect(hosts.map((host) => isWithoutProxy(egress?.noProxy ?? [], host, 443))).to.deep.equal([
        true,
        true,
        true,
        false,
      ]);
    }
    const none = readProxySettings({ ...shipped, ...pod, EGRESS_LOGIN: "/etc/login" });
    expect(none.ok && none.value.egress).to.equal(undefined);
    const wrong = {
      ...environment,
      EGRESS_PROXY: "http://build:secret-word@proxy.corp:3128",
      EGRESS_NO_PROXY: "a b!",
    };
    for (const read of [readProxySettings(wrong), readControllerSettings(wrong)]) {
      const problems = read.ok ? [] : read.problems;
      expect(problems.map(({ path }) => path)).to.have.members(["EGRESS_PROXY", "EGRESS_NO_PROXY"]);
      expect(JSON.stringify(problems)).to.not.contain("secret-word");
    }
  });

  it("close for connectors what they close for tunnels", () => {
    const environment = {
      ...shipped,
      ...pod,
      TUNNEL: "tunnel,!10.96.0.0/12",
      UPSTREAM_NETWORKS: "10.1.0.0/16,!10.2.0.0/16,registry.corp:5000",
    };
    const upstreams = {
      hosts: [{ host: "registry.corp", port: 5000 }],
      networks: ["10.1.0.0/16"],
      neverNetworks: ["10.2.0.0/16", "10.96.0.0/12"],
    };
    for (const read of [readProxySettings(environment), readControllerSettings(environment)]) {
      expect(read.ok && read.value.upstreams).to.deep.equal(upstreams);
    }
    const wrong = { ...environment, TUNNEL: "a b", UPSTREAM_NETWORKS: "refuse" };
    for (const read of [readProxySettings(wrong), readControllerSettings(wrong)]) {
      const paths = read.ok ? [] : read.problems.map(({ path }) => path);
      expect(paths).to.have.members(["TUNNEL", "UPSTREAM_NETWORKS"]);
    }
  });

  it("have audiences of their own for volumes and for images", () => {
    const environment = { ...shipped, ...pod, AUDIENCE: "connectors-images" };
    for (const read of [readProxySettings(environment), readCsiSettings(environment)]) {
      const problems = read.ok ? [] : read.problems;
      expect(problems.map(({ path }) => path)).to.deep.equal(["AUDIENCE"]);
      expect(problems[0]?.wanted).to.contain("not connectors-images");
    }
  });

  it("have pairs of an audience and a registry for identities, in both roles that connect to registries", () => {
    const given = { ...shipped, ...pod, POD_NAME: "controller-1" };
    const [proxy, controller] = [readProxySettings, readControllerSettings].map((read) =>
      read({ ...given, OIDC_AUDIENCES: "ours=artifactory.example.com" }),
    );
    const allowedAudiences = [{ audience: "ours", host: "artifactory.example.com" }];
    expect(proxy?.ok && proxy.value).to.deep.include({ allowedAudiences });
    expect(controller?.ok && controller.value).to.deep.include({ allowedAudiences });
    for (const read of [readProxySettings, readControllerSettings]) {
      const refused = read({
        ...given,
        OIDC_AUDIENCES: "sts.amazonaws.com=artifactory.example.com",
      });
      expect(refused.ok ? [] : refused.problems.map(({ path }) => path)).to.deep.equal([
        "OIDC_AUDIENCES",
      ]);
    }
  });

  it("are refused where the registries of images are not hosts", () => {
    const environment = {
      ...shipped,
      ...pod,
      NODE_IMAGE_HOSTS: "harbor.example.com,https://harbor.example.com",
      NODE_IMAGES_WITHOUT_CONNECTOR: "allow",
    };
    const read = readProxySettings(environment);
    expect(read.ok ? [] : read.problems.map(({ path }) => path)).to.have.members([
      "NODE_IMAGE_HOSTS",
      "NODE_IMAGES_WITHOUT_CONNECTOR",
    ]);
  });

  it("are refused with every value that is wrong", () => {
    const settings = readCsiSettings({
      POD_NAMESPACE: "Not a namespace",
      NODE_NAME: "node-1",
      AUDIENCE: "",
      CLUSTER_DOMAIN: "cluster.local",
      KUBELET_PLUGIN: "relative/path",
      NO_PROXY_HOSTS: "a b",
      REQUIRE_PROXY_VERB: "yes",
      DEFAULT_PERMISSION: "cluster",
    });
    expect(settings.ok ? [] : settings.problems.map(({ path }) => path)).to.deep.equal([
      "POD_NAMESPACE",
      "AUDIENCE",
      "KUBELET_PLUGIN",
      "KUBELET_REGISTRATION",
      "NO_PROXY_HOSTS",
      "REQUIRE_PROXY_VERB",
      "DEFAULT_PERMISSION",
    ]);
  });
});
