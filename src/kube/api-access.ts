import { readFile } from "node:fs/promises";
import { Agent, type RequestOptions } from "node:https";
import { join } from "node:path";
import { withBrackets } from "../connector/host-name.ts";
import { errorCode } from "../error-code.ts";

/** Where the API server is, and with whose credential it is asked. */
export interface ApiAccess {
  /** Its base URL, `https://10.96.0.1:443`, perhaps with a path. */
  readonly server: URL;
  /**
   * Headers, agent and TLS settings of the next request. They are read anew for each request, since tokens and
   * certificates are replaced while we run.
   */
  readonly requestOptions: (purpose: RequestPurpose) => Promise<RequestOptions>;
}

/** Watches last for minutes and have connections of their own, so that requests never wait for one. */
export type RequestPurpose = "request" | "watch";

/**
 * Connections for requests. An API server answers in milliseconds, and whoever asks more than that at once waits: the
 * queues of reviews and Secrets (fair-queue.ts) say who is next.
 */
const maxRequestSockets = 24;

/** What a Pod knows of the API server. */
export interface InClusterOptions {
  /** KUBERNETES_SERVICE_HOST: a name or an IP address, without brackets. */
  readonly host: string;
  /** KUBERNETES_SERVICE_PORT. */
  readonly port: string;
  /** Where the kubelet keeps this Pod's own token and the cluster's CA certificate: {@link serviceAccountFolder}. */
  readonly folder: string;
}

/** Where the kubelet mounts the files of a Pod's ServiceAccount. */
export const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * Creates access as this Pod's ServiceAccount. Its `requestOptions` throws where the files can't be read.
 *
 * It does not use KubeConfig of @kubernetes/client-node, whose module brings the client of the whole
 * API along. Measured as RSS after import on Node 24.21: bare 42 MiB, gRPC 69, gRPC and node:https
 * 69, gRPC and undici 77, KubeConfig alone 124. A role that runs on each node has 90 for all.
 */
export function createInClusterAccess({ host, port, folder }: InClusterOptions): ApiAccess {
  const server = new URL(`https://${withBrackets(host)}:${port}`);
  let agents: ({ readonly ca: string } & Readonly<Record<RequestPurpose, Agent>>) | undefined;
  const agentFor = (ca: string, purpose: RequestPurpose): Agent => {
    if (agents?.ca !== ca) {
      agents = {
        ca,
        request: new Agent({ keepAlive: true, ca, maxSockets: maxRequestSockets }),
        watch: new Agent({ keepAlive: true, ca }),
      };
    }
    return agents[purpose];
  };
  return {
    server,
    async requestOptions(purpose) {
      // The kubelet replaces both files; a read costs nothing beside a request.
      const [token, ca] = await Promise.all(
        ["token", "ca.crt"].map((name) => readFile(join(folder, name), "utf8")),
      );
      return {
        headers: { authorization: `Bearer ${token?.trim()}` },
        agent: agentFor(ca ?? "", purpose),
      };
    },
  };
}

/** Which kubeconfig to use, and which context of it. */
export interface KubeconfigOptions {
  /** Path of a kubeconfig file. Unless given it is that of kubectl: KUBECONFIG, or `~/.kube/config`. */
  readonly file?: string;
  /** The name of the context; the file's current context unless given. */
  readonly context?: string;
}

/**
 * Loads access as the user of a kubeconfig, with tokens, certificates, exec plugins and so on. The library is imported
 * only when this is called, since it takes more memory than a role has: see {@link createInClusterAccess}.
 * @throws Error where the file can't be read, has no such context, or the library is not installed
 */
export async function loadKubeconfigAccess({
  file,
  context,
}: KubeconfigOptions): Promise<ApiAccess> {
  const { KubeConfig } = await import("@kubernetes/client-node").catch(explainMissingLibrary);
  const kubeConfig = new KubeConfig();
  try {
    if (file === undefined) kubeConfig.loadFromDefault();
    else kubeConfig.loadFromFile(file);
  } catch (error) {
    throw new Error(
      `the kubeconfig can't be read (${readErrorReason(error)}): set KUBECONFIG to one`,
    );
  }
  if (context !== undefined) kubeConfig.setCurrentContext(context);
  const cluster = kubeConfig.getCurrentCluster();
  if (cluster === null) {
    const name = context ?? kubeConfig.getCurrentContext();
    throw new Error(`the kubeconfig has no cluster for its context "${name}"`);
  }
  if (cluster.server === fallbackServer) {
    throw new Error("there is no kubeconfig: set KUBECONFIG to one, or create ~/.kube/config");
  }
  return {
    server: new URL(cluster.server),
    async requestOptions() {
      const options: RequestOptions = {};
      await kubeConfig.applyToHTTPSOptions(options);
      return options;
    },
  };
}

/** The server that the library makes up where it finds no kubeconfig. */
const fallbackServer = "http://localhost:8080";

/** The code of an error, and never its message: an error of YAML quotes the file, with the tokens in it. */
const readErrorReason = (error: unknown): string =>
  String(errorCode(error) ?? "its content is not a kubeconfig");

/** The library is an optional dependency, since images leave it out. */
function explainMissingLibrary(error: unknown): never {
  if (errorCode(error) !== "ERR_MODULE_NOT_FOUND") throw error;
  throw new Error(
    "reading a kubeconfig requires the library @kubernetes/client-node, which is not installed: outside a cluster, install the program with its optional dependencies (npm ci); inside a cluster, KUBERNETES_SERVICE_HOST must be set",
    { cause: error },
  );
}
