/** What a node's container runtime is told of a registry: to ask the node's proxy, and nobody else. */

/**
 * The first line of every file that is ours. A file without it is somebody else's, and stays as it is. The kubelet's
 * plug-in looks for it, too.
 */
export const ownMark =
  "# oci-connector wrote this file, and undoes what is changed in it: docs/own-images.md";

/** Whether the content of a file is ours. */
export const isOwn = (content: string): boolean => content.startsWith(`${ownMark}\n`);

/** The file beside hosts.toml with the certificates of the proxy's authority. It has no name that others use. */
export const caFileName = "oci-connector-ca.pem";

/**
 * Renders the `hosts.toml` of a registry. containerd hands a Pod's token to every host that stands in it, and to the
 * registry itself where there is no `server`: so each is the proxy. The `server` gets no request, since it can only push
 * and a runtime doesn't; it is there so that nothing goes past the proxy.
 * @param proxy `https://10.96.0.7`
 */
export const renderHostsToml = (proxy: string): string => `${ownMark}
server = "${proxy}"
capabilities = ["push"]
ca = "${caFileName}"

[host."${proxy}"]
capabilities = ["pull", "resolve"]
ca = "${caFileName}"
`;
