/** The bench itself; `bench.ts` starts it in a namespace of its own. */
import { writeFile } from "node:fs/promises";
import { type Cleanup, cleanup } from "../test/support/cleanup.ts";
import { makeCertificates } from "./certificates.ts";
import type { Comparison } from "./comparison.ts";
import { startContestants } from "./contestants.ts";
import type { Figure } from "./figure.ts";
import { describeMachine } from "./machine.ts";
import { measureMemory } from "./memory.ts";
import { type Plan, readOptions, type Section } from "./options.ts";
import { comparePulls } from "./pulls.ts";
import { comparePushes } from "./pushes.ts";
import { startRegistries } from "./registries.ts";
import { comparisonTable, figureTable } from "./report.ts";
import { compareSmallRequests } from "./small-requests.ts";
import { compareTunnels, type TunnelComparisons, ways } from "./tunnels.ts";
import { measureVolumes } from "./volumes.ts";

const document = new URL("../docs/bench.md", import.meta.url);

const options = readOptions(process.argv.slice(2));
if (!options.ok) throw new Error(options.reason);
await bench(options.plan);

async function bench(plan: Plan): Promise<void> {
  const resources = cleanup();
  try {
    const report = await measure(plan, resources);
    process.stdout.write(report);
    if (plan.isWhole) await writeFile(document, report);
  } finally {
    await resources.stop();
  }
}

async function measure(plan: Plan, resources: Cleanup): Promise<string> {
  const certificates = await makeCertificates();
  const registries = await startRegistries(resources, certificates, plan.blobBytes);
  const contestants = await startContestants(resources, registries, certificates);
  const compared: Comparison[] = [];
  const tunnels: TunnelComparisons[] = [];
  const figures: Figure[] = [];
  const sections: Readonly<Record<Section, () => Promise<unknown>>> = {
    pulls: async () => compared.push(...(await comparePulls(contestants, registries.blob, plan))),
    pushes: async () => compared.push(...(await comparePushes(contestants, registries.blob, plan))),
    small: async () => compared.push(...(await compareSmallRequests(contestants, plan))),
    tunnels: async () =>
      tunnels.push(await compareTunnels(resources, registries, certificates, plan)),
    volumes: async () =>
      figures.push(...(await measureVolumes(resources, registries, certificates, plan))),
    memory: async () =>
      figures.push(...(await measureMemory(resources, registries, certificates, plan))),
  };
  for (const section of plan.sections) {
    process.stderr.write(`measuring ${section} …\n`);
    await sections[section]();
  }
  return [
    introduction(await describeMachine()),
    ...(compared.length === 0 ? [] : [comparisonsOf(plan, compared)]),
    ...tunnels.map(tunnelsOf),
    ...(figures.length === 0 ? [] : [`\n${figureTable(figures)}`]),
  ].join("");
}

function introduction(machine: string): string {
  return `# Measured: the connector beside nginx

\`npm run bench\` has written this: ${machine}; everything on loopback of one machine.
Ratios hold better than figures, which depend on the machine and on what else it does.
`;
}

function comparisonsOf({ blobBytes, rounds }: Plan, compared: readonly Comparison[]): string {
  return `
A blob of ${blobBytes / 1024 / 1024} MiB is moved by curl, from an nginx that hands out files by sendfile and wants a login, to a process
that counts bytes and to docker-registry; wrk gets a tiny manifest. Everybody took a turn, then everybody another, ${rounds} in
all. Cells are medians, in parentheses the median of the ratios to nginx in the same round. "CPU" is the proxy's own time for
the same work, as a ratio to nginx's. Both write a line to a log file for each request.

- direct: no proxy, the limit
- nginx: a reverse proxy, one process, that adds a fixed Authorization, its buffers as they are by default
- nginx, 8 × 1 MiB: the same with \`proxy_buffers 8 1m\`
- oci-connector: \`oci-connector standalone\`, one process, with a mounted volume whose token is verified for each request

${comparisonTable(compared)}`;
}

function tunnelsOf({ intercepted, blind }: TunnelComparisons): string {
  return `
The same blob, and the manifest with a TLS connection for each request, by the forward proxy: a CONNECT to a connector's registry, beside the same
by the proxy's own name; and a blind tunnel to the registry itself, beside haproxy with one thread that passes TCP on, which asks nobody who they are.

${comparisonTable(intercepted, { subject: ways.intercepted, yardstick: ways.reverse })}
${comparisonTable(blind, { subject: ways.blind, yardstick: ways.haproxy })}`;
}
