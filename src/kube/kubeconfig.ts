import type { RequestOptions } from "node:https";
import { errorCode } from "../error-code.ts";
import type { ApiAccess } from "./api-request.ts";

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
