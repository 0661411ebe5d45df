/** The exit codes of this program, and what each of them means. `help` and README.md show the same table. */
export const exitCodes: Readonly<
  Record<"done" | "failed" | "wrongUsage" | "notRun" | "notExecutable" | "notFound", ExitCode>
> = {
  done: { code: 0, meaning: "done; a process that serves was told to end, and has ended in order" },
  failed: {
    code: 1,
    meaning:
      "failed, as the message says; check or doctor has found a failure; a second signal has cut the end short",
  },
  /** EX_USAGE of sysexits.h. */
  wrongUsage: {
    code: 64,
    meaning: "the command line, or an environment variable that it relies on, is wrong",
  },
  /** The rest as env(1) and nohup(1) have it. */
  notRun: { code: 125, meaning: "run: the command was not started, as the message says" },
  notExecutable: { code: 126, meaning: "run: the command can't be executed" },
  notFound: { code: 127, meaning: "run: there is no such command" },
};

interface ExitCode {
  readonly code: number;
  readonly meaning: string;
}

/** Every command, in the order in which they are shown, and what it is for. */
const summaries = {
  standalone: "serve connectors on this machine, without Kubernetes",
  mount: "mount a volume with the files for some connectors",
  run: "run a command with a volume of its own, which ends with it",
  unmount: "end a volume: its token is refused, its files and its mount go",
  volumes: "list the volumes that are mounted",
  render: "print the files that a volume would hold",
  check: "say what is wrong with a folder of connectors, and which registry refuses its login",
  doctor: "say what is wrong with an installation in a cluster, or with a connector",
  csi: "the role that mounts volumes on a node of a cluster",
  proxy: "the role that passes the registry requests of a cluster's Pods on",
  controller: "the role that keeps a cluster's Connectors in order",
  "node-images": "the role that has a node pull its Pods' images through the proxy",
  help: "print this list, or the help of one command",
  version: "print the version",
} as const;

export type CommandName = keyof typeof summaries;

export const commandNames: readonly CommandName[] = Object.keys(summaries) as CommandName[];

/** Whether a word is the name of a command, and not of something that every object has. */
export const isCommandName = (word: string): word is CommandName => Object.hasOwn(summaries, word);

/** What `oci-connector help` says. */
export const commandList: string = `usage: oci-connector COMMAND [options]

Commands; "oci-connector help COMMAND" has the options of each:

${commandNames.map((name) => `  ${name.padEnd(12)}${summaries[name]}\n`).join("")}
Exit codes:

${Object.values(exitCodes)
  .map(({ code, meaning }) => `  ${String(code).padEnd(5)}${meaning}\n`)
  .join("")}
"run" ends with the code of its command, or with 128 and the number of a signal that has ended it.
`;

const files = `  --configuration NAMES   more files: docker-config, buildkitd, registries-conf, containerd; !FILE leaves
                          one out; several with commas
  --params JSON           settings of the configurations, such as {"buildkitd":{"mirror":true}}
  --namespace NAME        namespace of connectors that are named without one (default default)
`;

const tokenExpiration = `  --token-expiration TIME how long the volume's token lives, 10m to 8760h (default: as the standalone
                          process has it)
`;

const egress = `  --egress-proxy URL      a company's HTTP proxy, by which registries and other hosts are reached:
                          http://HOST:PORT, or https://HOST:PORT where it speaks TLS itself
  --egress-no-proxy HOSTS
                          hosts that are reached without it, with commas, as in no_proxy: harbor.corp,
                          .corp, 10.0.0.0/8, harbor.corp:8443, or * for all; this machine always is
  --egress-login FILE     file with USER:PASSWORD for it
  --egress-resolves       names that DNS does not know here may be known to it; they are judged as names
`;

const stateOfProcess = `  --state DIR             for root: state folder of the standalone process
                          (default /var/lib/oci-connector)
  --run-folder DIR        for others: --run-folder of the standalone process, in which the user's socket is
                          (default /run/oci-connector)
`;

/** What `oci-connector help COMMAND` says. Each option has a line of its own, with two spaces before it. */
export const commandHelp: Readonly<Record<CommandName, string>> = {
  standalone: `usage: oci-connector standalone --connectors DIR [options]

Serves the connectors of a folder on this machine: the proxy, and the socket that "mount" asks. It wants
root, since a volume is a mount, and runs until SIGTERM or SIGINT; a second signal ends it at once. SIGHUP
reads the folder again. It refuses to start where no Connector of the folder's files can be used; an empty
folder will do.

  --connectors DIR        folder of YAML with Connectors and their Secrets; has to be given
  --listen ADDRESS        [http://|https://]HOST:PORT, https unless told; twice for one address of each
                          scheme (default https://127.0.0.1:5443)
  --state DIR             keys, certificate authority and records of mounted volumes
                          (default /var/lib/oci-connector)
  --run-folder DIR        where the volumes of "run" are (default /run/oci-connector)
  --token-lifetime TIME   how long a volume's token lives, 10m to 8760h (default 4h)
  --allow USER=NAMES      let a user who is not root have volumes with these connectors: NAMESPACE/NAME, also
                          with * for a part, several with commas; @GROUP=NAMES for the members of a group; as
                          often as needed
  --grace TIME            how long requests under way may take at the end, 0s to 24h (default 30s)
  --tunnel HOSTS          where clients may go through the proxy, besides their connectors: "tunnel" for
                          every public host, "refuse" for none, or hosts with commas: github.com:443,
                          *.example.com, 10.1.0.0/16, !10.96.0.0/12 (default tunnel)
  --token-files DIR       folder with the tokens (JWTs, which something else renews) that connectors with
                          oidcAuth name
  --credential-helpers DIR
                          folder with the programs docker-credential-NAME that connectors with execAuth name
${egress}
example:
  oci-connector standalone --connectors /etc/oci-connector \\
    --listen https://127.0.0.1:5443 --listen http://127.0.0.1:5080
`,
  run: `usage: oci-connector run --connectors NAMES [options] -- COMMAND [ARGUMENT…]

Runs a command with a volume of its own, and with the variables by which tools find what is in it. The
volume ends with the command, also when this one is killed: its token is refused, its files and its mount
go. Signals and the exit code are passed on. Unless --configuration or --params say otherwise, the volume
has docker-config and registries-conf, by which images are pulled by their own names, too.

  --connectors NAMES      connectors that the volume opens: NAME or NAMESPACE/NAME, several with commas
  --forward               set the variables of the forward proxy, too: tools then use images' own names
${files}${tokenExpiration}  --group GID             for root alone: number of the group that may read the volume (default: root's
                          own)
${stateOfProcess}
What the command finds in its environment, beside the variables of the caller:

  OCI_CONNECTOR_VOLUME    the folder of the volume, which is read-only
  OCI_CONNECTOR_IMAGES    what image names begin with, for the last connector
  DOCKER_CONFIG, REGISTRY_AUTH_FILE
                          the login (with docker-config)
  CONTAINERS_REGISTRIES_CONF
                          the machine's registries and the volume's (with registries-conf)
  BUILDX_CONFIG           a folder of this command's own
  BUILDKITD_FLAGS         --config with the volume's buildkitd.toml (with buildkitd)
  SSL_CERT_FILE, CURL_CA_BUNDLE, GIT_SSL_CAINFO, GIT_PROXY_SSL_CAINFO, REQUESTS_CA_BUNDLE, AWS_CA_BUNDLE,
  NODE_EXTRA_CA_CERTS     the certificates that were trusted before, and the proxy's

example:
  oci-connector run --connectors team-a/harbor -- buildah pull harbor.example.com/library/alpine:3
`,
  mount: `usage: oci-connector mount TARGET --connectors NAMES [options]

Mounts a volume at the folder TARGET, which is made where it is missing: the files that tools read, and
the token that opens the connectors. A standalone process has to run on this machine. The volume ends by
"unmount", and before that when its time is over, when the machine is started again, or when somebody else
unmounts it.

  --connectors NAMES      connectors that the volume opens: NAME or NAMESPACE/NAME, several with commas
${files}${tokenExpiration}  --for TIME              how long the volume lives at most, 1s to 8760h, or 0 for no limit (default 24h)
  --pid PID               end the volume with this process, too
  --persistent            mount the volume again after a reboot
  --read-only             let nobody write into the volume, not even root
  --replace               end a volume that is mounted at TARGET, and take its place
  --force                 hide files that are in TARGET, until the volume ends
  --group GID             number of the group that may read the volume (default: the caller's)
${stateOfProcess}
A user who is not root can do this where the operator has allowed it (--allow of "standalone"): on an empty
folder that the user owns, for that user alone, read-only, and for 24 hours at most unless --pid is given.
--persistent, --force and --group are for root alone.

example:
  oci-connector mount --connectors team-a/harbor --configuration docker-config --for 2h /run/job-7
`,
  unmount: `usage: oci-connector unmount TARGET [options]

Ends the volume at the folder TARGET: its token is refused, its files are removed, and its mount goes. Where
somebody still uses the mount, it is gone from TARGET at once, and ends with its last user.

${stateOfProcess}
example:
  oci-connector unmount /run/job-7
`,
  volumes: `usage: oci-connector volumes [options]

Lists the volumes that are mounted: where, with which connectors, by whom, since when, until when, and when
their token was used last, as far as the standalone process that runs has seen it.

${stateOfProcess}  --output FORMAT         text or json (default text)
`,
  render: `usage: oci-connector render [FILE…] --connectors NAMES [options]

Prints the files that a volume would hold, or only those that are named, with placeholders for the token
and the certificate. Nothing is mounted, and no process has to run.

  --connectors NAMES      connectors of the volume: NAME or NAMESPACE/NAME, several with commas
${files}  --proxy ADDRESS         "cluster", or the proxy of a machine: [http://|https://]HOST:PORT, https unless
                          told; twice for one address of each scheme (default cluster)
  --cluster-domain NAME   DNS domain of the cluster (default cluster.local)
  --image-host HOST       the registry's part of image names, for mirrors: once for each connector

example:
  oci-connector render registries.conf --connectors team-a/harbor --configuration registries-conf \\
    --proxy https://127.0.0.1:5443
`,
  check: `usage: oci-connector check DIR [options]

Says what is wrong with a folder of connectors for "standalone": with each file, and with each connector and
the Secrets that it names. Nothing is mounted, and no process has to run. The exit code is 1 where anything
has FAILED.

  --login                 also ask each registry whether it takes the login of its connector; a login that
                          it has refused is tried once only
${egress}  --output FORMAT         text or json (default text)

example:
  oci-connector check --login /etc/oci-connector
`,
  doctor: `usage: oci-connector doctor [NAMESPACE/CONNECTOR] [options]

Says what is wrong with an installation in a cluster, or with a connector, and what helps. It asks with
the rights of the kubeconfig. The exit code is 1 where anything has FAILED.

  --service-account NAME  whose right to use the connector is looked at: NAMESPACE/NAME
  --context NAME          of the kubeconfig (default: the current one, and in a Pod the Pod's own account)
  --install-namespace NAME
                          where all is installed (default: where the DaemonSet is found, and in a Pod
                          of the installation the Pod's own)
  --output FORMAT         text or json (default text)

example:
  oci-connector doctor team-a/harbor --service-account team-a/builder
`,
  csi: clusterRole("csi", "Mounts volumes on a node of a cluster, as the kubelet asks.", [
    "POD_NAMESPACE, NODE_NAME, AUDIENCE, CLUSTER_DOMAIN, KUBELET_PLUGIN, KUBELET_REGISTRATION,",
    "NO_PROXY_HOSTS, REQUIRE_PROXY_VERB, DEFAULT_PERMISSION, STARTUP_TAINT",
  ]),
  proxy: clusterRole("proxy", "Passes the registry requests of a cluster's Pods on.", [
    "POD_NAMESPACE, AUDIENCE, CLUSTER_DOMAIN, SEPARATE_PUSH, REQUIRE_PROXY_VERB, DEFAULT_PERMISSION,",
    "TUNNEL, TOKEN_GRACE, NODE_IPS, NODE_IMAGE_HOSTS, NODE_IMAGES_WITHOUT_CONNECTOR, EGRESS_PROXY,",
    "EGRESS_NO_PROXY, EGRESS_RESOLVES, EGRESS_LOGIN",
  ]),
  controller: clusterRole("controller", "Keeps a cluster's Connectors in order.", [
    "POD_NAMESPACE, POD_NAME, AUDIENCE, CLUSTER_DOMAIN, EGRESS_PROXY, EGRESS_NO_PROXY,",
    "EGRESS_RESOLVES, EGRESS_LOGIN",
  ]),
  "node-images": clusterRole(
    "node-images",
    "Has a node pull the images of its Pods through the proxy.",
    [
      "POD_NAMESPACE, NODE_NAME, AUDIENCE, CLUSTER_DOMAIN, NODE_IMAGE_HOSTS, NODE_IMAGES,",
      "NODE_IMAGES_PROXY, NODE_CERTS, NODE_PROVIDER_BIN, NODE_PROVIDER_FOLDER, NODE_PROVIDER_FILE,",
      "NODE_MOUNTS, RESTART_KUBELET",
    ],
  ),
  help: `usage: oci-connector help [COMMAND]

Prints the list of commands, or the help of one. "oci-connector COMMAND --help" and -h do the same.
`,
  version: `usage: oci-connector version

Prints the name and version of this program. --version and -V do the same.
`,
};

function clusterRole(name: CommandName, what: string, variables: readonly string[]): string {
  return `usage: oci-connector ${name}

${what} It takes no options: its settings are environment
variables, which daemonset/settings.env explains and the manifests in daemonset/ set:

${variables.map((line) => `  ${line}\n`).join("")}`;
}
