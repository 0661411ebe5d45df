/** For mocha's --require. */
import { endInstalledCluster } from "./installed/installed-cluster.ts";
import { buildKubernetes } from "./kubernetes-programs.ts";

/** Before anything, and once: the workers would build it side by side. */
export async function mochaGlobalSetup(): Promise<void> {
  if (!process.env.KUBECONFIG) await buildKubernetes();
}

/** What suites have shared ends after the last of them. */
export const mochaHooks: { afterAll: () => Promise<void> } = { afterAll: endInstalledCluster };
