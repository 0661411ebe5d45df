/** What `oci-connector help` says. */
export const usage = `usage: oci-connector <command> [options]

  standalone  serve connectors on this machine, without Kubernetes
      --connectors DIR      folder of YAML with Connectors and their Secrets
      --listen ADDRESS      [http://|https://]HOST:PORT, https unless told; at most one of each
                            (default 127.0.0.1:5080)
      --state DIR           keys, certificate authority and records of mounted volumes
                            (default /var/lib/oci-connector)
      --token-lifetime TIME how long a volume's token lives (default 4h, 10m to 8760h)
      --grace TIME          how long requests under way may take at the end (default 30s, 0s to 24h)
      --tunnel HOSTS        where clients may go through the proxy, besides their connectors: "tunnel" (default) for
                            every public host, "refuse" for none, or hosts with commas: github.com:443,
                            *.example.com, 10.1.0.0/16, !10.96.0.0/12

  mount TARGET  mount a volume with the files for some connectors
      --connectors NAMES    connectors that it opens: <name> or <namespace>/<name>, with commas
      --configuration NAMES docker-config, buildkitd, registries-conf, containerd, !<file>, with commas
      --params JSON         settings of the configurations
      --token-expiration TIME
      --namespace NAME      namespace of connectors that are named without one (default default)
      --group GID           group that may read the volume (default: the caller's)
      --state DIR           of the standalone process (default /var/lib/oci-connector)

  unmount TARGET
      --state DIR           of the standalone process (default /var/lib/oci-connector)

  render [FILE…]  print the files that a volume would hold, with placeholders for token and certificate
      --connectors NAMES    as above, and so are the next three
      --configuration NAMES
      --params JSON
      --namespace NAME
      --proxy ADDRESS       "cluster" (default), or the proxy of a machine: [http://|https://]HOST:PORT, at
                            most one of each
      --cluster-domain NAME (default cluster.local)
      --image-host HOST     the registry's part of image names, for mirrors: once for each connector

  doctor [NAMESPACE/CONNECTOR]  what is wrong with an installation in a cluster, or with a connector?
      --service-account NAME checks its right to use the connector: <namespace>/<name>
      --context NAME        of the kubeconfig (default: the current one; in a Pod its own account)
      --install-namespace NAME where it is installed (default connectors-system)
      --output FORMAT       text (default) or json; the exit status is 1 where anything has FAILED

  csi, proxy, controller  the roles in a cluster; settings come from the environment,
                          see daemonset/settings.env
`;
