/** How the things of daemonset/ are called; they lie in the namespace of the installation. */
export const installedNames = {
  /** The Service of all proxies, onto which each connector's own leads. */
  proxyService: "connectors-proxy",
  /** Of the Pods on the nodes, csi and proxy. */
  proxyServiceAccount: "connectors-node",
  controllerServiceAccount: "connectors-controller",
  nodeDaemonSet: "connectors-node",
  controllerDeployment: "connectors-controller",
  /** `get secrets`: bound to the controller everywhere, or namespace by namespace. */
  secretReaderClusterRole: "connectors-secret-reader",
} as const;
