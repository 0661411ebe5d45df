/**
 * A real Kubernetes for the tests: the one that KUBECONFIG names, or one that is started on this
 * machine, without any image from outside.
 */
import { type Kubectl, kubectlWith } from "./kubectl.ts";
import { startOwnCluster } from "./own-cluster.ts";
import type { RestartOptions } from "./program.ts";

export interface Cluster {
  /** Whether it was started here. What is marked with "own" below throws elsewhere. */
  readonly own: boolean;
  /** An administrator's. With nodes, the API server is reached from them alone: see `run`. */
  readonly kubeconfig: string;
  readonly kubectl: Kubectl;
  /** Own: where it keeps its logs and everything else. */
  readonly folder: string;
  /** Own: runs a command on a node, where Services and Pods are reached and volumes are seen. */
  run(argv: readonly string[], options?: RunOptions): Promise<string>;
  /**
   * Own: starts a program on the first node that goes on as long as the cluster.
   * @returns what reads all that it has written so far
   */
  start(name: string, argv: readonly string[]): Promise<() => Promise<string>>;
  /** Own: gives an image archive to every node. */
  load(image: string): Promise<void>;
  /** Own: ends one of its programs (SIGTERM) and starts it as it was: kubelet, apiserver, etcd… */
  restart(program: string, options?: ProgramOptions): Promise<void>;
  /** Ends it, and removes all that it was made of; leaves a foreign one alone. */
  stop(): Promise<void>;
}

export interface RunOptions {
  readonly node?: string | undefined;
  readonly input?: string;
}

export interface ProgramOptions extends RestartOptions {
  readonly node?: string | undefined;
}

export interface ClusterOptions {
  /** Without nodes there are only etcd and an API server: enough for objects, reviews and tokens. */
  readonly nodes: 0 | 1 | 2;
  /** Where it keeps everything; a new folder unless given. It may not lie in /run, /var/log or /var/lib. */
  readonly folder?: string;
  /** Whether it goes on when this process ends. */
  readonly outliveUs?: boolean;
}

/** The cluster that KUBECONFIG names, or one that is started here. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { KUBECONFIG: foreign } = process.env;
  return foreign ? foreignCluster(foreign) : startOwnCluster(options);
}

function foreignCluster(kubeconfig: string): Cluster {
  const refuse = (): never => {
    throw new Error("this test needs a cluster that it starts itself: run it without KUBECONFIG");
  };
  return {
    own: false,
    kubeconfig,
    kubectl: kubectlWith(kubeconfig),
    get folder() {
      return refuse();
    },
    run: refuse,
    start: refuse,
    load: refuse,
    restart: refuse,
    stop: async () => {},
  };
}
