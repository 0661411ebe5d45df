/** A driver in a process of its own, to be killed: `node driver-process.ts SOCKET`. */
import { serviceHosts } from "../../src/connector/proxy-address.ts";
import { serveCsi } from "../../src/csi/server.ts";
import { systemMounts } from "../../src/csi/volume-mounts.ts";
import { createVolumeNode } from "../../src/csi/volume-node.ts";
import { audience, foundConnector, start } from "./csi-driver.ts";

const [socketPath = ""] = process.argv.slice(2);
const log = (): void => undefined;
const node = createVolumeNode({
  audience,
  findConnector: async (ref) => foundConnector(ref),
  mayUse: async () => ({ ok: true, value: undefined }),
  proxyHostsOf: serviceHosts("cluster.local"),
  caCertificate: () => "a certificate\n",
  rootCertificates: () => "roots\n",
  noProxy: [],
  toolsSeeTargetPath: false,
  mounts: systemMounts,
  now: () => start.getTime(),
  log,
});
await serveCsi({
  socketPath,
  node,
  nodeId: "node-1",
  version: "1.2.3",
  isReady: () => true,
  graceMs: 1_000,
  log,
});
process.stdout.write("ready\n");
