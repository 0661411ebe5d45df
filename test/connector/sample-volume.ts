import { type ProxyHostsOf, serviceHosts } from "../../src/connector/proxy-address.ts";
import type { VolumeConnector, VolumeContents } from "../../src/connector/volume-contents.ts";

/** Every sign that a token may have: a base64 one is the worst case for URLs and shells. */
export const sampleToken = "tok.en-1_2~3+4/5==";

export const sampleAuthority =
  "-----BEGIN CERTIFICATE-----\nYXV0aG9yaXR5\n-----END CERTIFICATE-----\n";

export const sampleRoots = "-----BEGIN CERTIFICATE-----\ncm9vdA==\n-----END CERTIFICATE-----\n";

/** A connector written `team-a/harbor=harbor.example.com`; without a registry it is one that is gone. */
function connector(text: string, hosts: ProxyHostsOf): VolumeConnector {
  const [ref = "", imageHost] = text.split("=");
  const [namespace = "", name = ""] = ref.split("/");
  return { ref: { namespace, name }, proxy: hosts({ namespace, name }), imageHost };
}

/** A volume of connectors that are written `team-a/harbor=harbor.example.com`, in a cluster unless said otherwise. */
export function sampleVolume(
  connectors: readonly [string, ...string[]],
  hosts: ProxyHostsOf = serviceHosts("cluster.local"),
): VolumeContents {
  const [first, ...others] = connectors;
  return {
    connectors: [connector(first, hosts), ...others.map((text) => connector(text, hosts))],
    token: sampleToken,
    caCertificate: sampleAuthority,
    rootCertificates: sampleRoots,
    noProxy: ["localhost", "127.0.0.1", ".svc"],
  };
}
