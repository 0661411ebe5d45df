import { readFile } from "node:fs/promises";
import { Agent, type RequestOptions } from "node:https";
import { join } from "node:path";
import { withBrackets } from "../connector/host-name.ts";
import { errorCode } from "../error-code.ts";

export interface InClusterOptions {
  /** KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT. */
  readonly host: string;
  readonly port: string;
  /** Where the kubelet keeps this Pod's own token and the cluster's CA: {@link serviceAccountFolder}. */
  readonly folder: string;
}

export const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * Access as this Pod's ServiceAccount.
 *
 * It does not use KubeConfig of @kubernetes/client-node, whose module brings the client of the whole
 * API along. Measured as RSS after import on Node 24.21: bare 42 MiB, gRPC 69, gRPC and node:https
 * 69, gRPC and undici 77, KubeConfig alone 124. A role that runs on each node has 90 for all.
 */
export function inClusterAccess({ host, port, folder }: InClusterOptions): ApiAccess {
  const server = new URL(`https://${withBrackets(host)}:${port}`);
  let agent: { readonly ca: string; readonly agent: Agent } | undefined;
  const agentFor = (ca: string): Agent => {
    if (agent?.ca !== ca) agent = { ca, agent: new Agent({ keepAlive: true, ca }) };
    return agent.agent;
  };
  return {
    server,
    async requestOptions() {
      // The kubelet replaces both files; a read costs nothing beside a request.
      const [token, ca] = await Promise.all(
        ["token", "ca.crt"].map((name) => readFile(join(folder, name), "utf8")),
      );
      return {
        headers: { authorization: `Bearer ${token?.trim()}` },
        agent: agentFor(ca ?? ""),
      };
    },
  };
}

export interface KubeconfigOptions {
  /** A kubeconfig file; without it what kubectl would take: KUBECONFIG, or the one in the home folder. */
  readonly file?: string;
  /** The context to use; the file's current one unless given. */
  readonly context?: string;
}

/**
 * Access as the user of a kubeconfig, with tokens, certificates, exec plugins and so on. The library
 * is loaded only here, since it takes more memory than a role has: see in-cluster.ts.
 * @throws where the file can't be read or names no cluster
 */
export async function kubeconfigAccess({ file, context }: KubeconfigOptions): Promise<ApiAccess> {
  const { KubeConfig } = await import("@kubernetes/client-node").catch(explainMissing);
  const kubeConfig = new KubeConfig();
  try {
    if (file === undefined) kubeConfig.loadFromDefault();
    else kubeConfig.loadFromFile(file);
  } catch (error) {
    throw new Error(`the kubeconfig can't be read (${whyUnread(error)}): set KUBECONFIG to one`);
  }
  if (context !== undefined) kubeConfig.setCurrentContext(context);
  const cluster = kubeConfig.getCurrentCluster();
  if (cluster === null) {
    const name = context ?? kubeConfig.getCurrentContext();
    throw new Error(`the kubeconfig has no cluster for its context "${name}"`);
  }
  if (cluster.server === assumedServer) {
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

/** What the library makes up where it finds nothing. */
const assumedServer = "http://localhost:8080";

/** An error of YAML quotes the file, with the tokens in it. */
const whyUnread = (error: unknown): string =>
  String(errorCode(error) ?? "its content is not a kubeconfig");

/** It is an optional dependency, since images leave it out. */
function explainMissing(error: unknown): never {
  if (errorCode(error) !== "ERR_MODULE_NOT_FOUND") throw error;
  throw new Error(
    "reading a kubeconfig requires the library @kubernetes/client-node, which is not installed: outside a cluster, install the program with its optional dependencies (npm ci); inside a cluster, KUBERNETES_SERVICE_HOST must be set",
    { cause: error },
  );
}

/** Where the API server is, and as whom we ask it. */
export interface ApiAccess {
  /** Its base URL, `https://10.96.0.1:443`, perhaps with a path. */
  readonly server: URL;
  /**
   * Headers, agent and TLS settings of the next request. Asked each time, since tokens and
   * certificates are replaced while we run.
   */
  readonly requestOptions: () => Promise<RequestOptions>;
}
