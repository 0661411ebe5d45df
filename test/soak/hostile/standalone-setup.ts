import { startCiHost } from "../../roles/ci-host.ts";
import { connectorYaml } from "../../roles/manifests.ts";
import { imageSettings } from "../image-settings.ts";
import { basePath, createAttacked, liveMemoryArgument, type Setup } from "./setup.ts";

/** Where registries listen. */
export const standaloneAddress = "127.0.0.1";

/** Standalone mode on a CI host: everybody's address is the same. @param registry of the neighbour */
export async function startStandaloneSetup(registry: string): Promise<Setup> {
  const { nodeArgs, env } = imageSettings();
  const host = await startCiHost({ nodeArgs: [...nodeArgs, liveMemoryArgument], env });
  const lead: Setup["lead"] = (address, params = []) =>
    host.write("evil.yaml", connectorYaml({ ref: "team-a/evil", address, params }));
  await lead(registry, []);
  await host.write("quiet.yaml", connectorYaml({ ref: "team-b/quiet", address: registry }));
  await host.waitForLog('"message":"connectors were added', "team-b/quiet");
  const attacker = await host.mount("attacker", "team-a/evil");
  const neighbour = await host.mount("neighbour", "team-b/quiet");
  // Half an hour of log is more than this process can keep.
  await host.program().stop();
  const program = await host.start("/dev/null");
  return {
    attacked: [createAttacked("standalone", 512, program)],
    neighbour: { host: host.http, token: neighbour.token, base: basePath("team-b", "quiet") },
    attacker: {
      host: host.http,
      token: attacker.token,
      base: basePath("team-a", "evil"),
      api: undefined,
    },
    lead,
    clear: () => lead(registry, []),
    publishKeys: undefined,
    restartRoles: undefined,
    makeConnector: undefined,
    async stop() {
      await host.stop();
    },
  };
}
