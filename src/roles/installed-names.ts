/** The names of the objects that daemonset/ installs, all of them in the namespace of the installation. */
export const installedNames = {
  /** The Service of all proxies, to which the Service of each connector leads. */
  proxyService: "connectors-proxy",
  /** The ServiceAccount of the Pods on the nodes, which run the csi role and the proxy. */
  proxyServiceAccount: "connectors-node",
  controllerServiceAccount: "connectors-controller",
  nodeDaemonSet: "connectors-node",
  controllerDeployment: "connectors-controller",
  /**
   * The ClusterRole with `get secrets`, which is bound to the controller in the whole cluster or namespace by
   * namespace.
   */
  secretReaderClusterRole: "connectors-secret-reader",
} as const;
