import { readFileSync } from "node:fs";
import { expect } from "chai";
import { readNodeImagesSettings } from "../../src/config/node-images-settings.ts";

/** daemonset/settings.env, as a Pod gets it. */
const shipped = Object.fromEntries(
  readFileSync(new URL("../../daemonset/settings.env", import.meta.url), "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
);
const environment = { ...shipped, POD_NAMESPACE: "connectors-system", NODE_NAME: "node-1" };

describe("the settings of the node-images role", () => {
  it("are those that are shipped", () => {
    expect(readNodeImagesSettings(environment)).to.deep.equal({
      ok: true,
      value: {
        namespace: "connectors-system",
        audience: "connectors-proxy",
        clusterDomain: "cluster.local",
        nodeName: "node-1",
        mode: "install",
        imageHosts: new Set(),
        proxy: undefined,
        certsFolder: "/etc/containerd/certs.d",
        providerBin: "/etc/kubernetes/credential-providers/bin",
        providerFolder: "/etc/kubernetes/credential-providers/config.d",
        providerFile: undefined,
        mounts: "/node",
        restartKubelet: undefined,
      },
    });
  });

  it("take what an operator changes", () => {
    const settings = readNodeImagesSettings({
      ...environment,
      NODE_IMAGE_HOSTS: "harbor.example.com:8443,*.example.com",
      NODE_IMAGES: "prepare",
      NODE_IMAGES_PROXY: "https://127.0.0.1:5443",
      NODE_PROVIDER_FILE: "config.json",
      RESTART_KUBELET: "kubelite",
    });
    expect(settings.ok && settings.value).to.deep.include({
      mode: "prepare",
      proxy: "https://127.0.0.1:5443",
      providerFile: "config.json",
      restartKubelet: "kubelite",
    });
  });

  it("are refused where they make no sense, all in one message", () => {
    const settings = readNodeImagesSettings({
      ...environment,
      NODE_IMAGE_HOSTS: "*.com",
      NODE_IMAGES: "uninstall",
      NODE_IMAGES_PROXY: "http://127.0.0.1:5080",
      NODE_CERTS: "certs.d",
      NODE_PROVIDER_FILE: "../config.json",
      RESTART_KUBELET: "kubelet now",
    });
    const paths = settings.ok ? [] : settings.problems.map(({ path }) => path);
    expect(paths).to.have.members([
      "NODE_IMAGE_HOSTS",
      "NODE_IMAGES",
      "NODE_IMAGES_PROXY",
      "NODE_CERTS",
      "NODE_PROVIDER_FILE",
      "RESTART_KUBELET",
    ]);
  });
});
