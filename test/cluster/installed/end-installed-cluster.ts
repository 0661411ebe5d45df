/** For mocha's --require: what suites have shared ends after the last of them. */
import { endInstalledCluster } from "./installed-cluster.ts";

export const mochaHooks: { afterAll: () => Promise<void> } = { afterAll: endInstalledCluster };
