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
- oci-connector: \`oci-connector standalone\`, one process, compiled and with the settings of the image, with a mounted volume whose
  token is verified for each request

${comparisonTable(compared)}
${whereTimeGoes()}`;
}

function whereTimeGoes(): string {
  return `Where the time goes, by \`node --cpu-prof\` and \`strace\`:

- Pulls: the kernel's copying from one socket to the other and, with TLS, the ciphers. The proxy reads into the same two buffers again and
  again, 1 MiB each for one pull (256 KiB by TLS) and down to 16 KiB for a hundred. Digests are hashed for 32 MiB at once and 128 MiB a second
  after that, so most of a blob of this bench passes without; one that comes over a network of a gigabit is checked to its end.
- Pushes: the kernel's copying and, with TLS, the cipher, whose records of 16 KiB each cost a call from Node and a copy. What comes in one turn of the
  event loop is written to the registry at once; written one by one, the records cost half as much CPU again.
- Small requests: a quarter are the two system calls that write and the streams around them, a third is Node's HTTP server, its garbage collector and
  asking the registry, a third are the proxy's own checks: token, rights, rules, limits, headers both ways, and the audit line; 4 % are one hash of the
  token. A server by node:http that says hello and asks nobody takes as much of a core for an answer as nginx takes for passing one on.
- Publishing a volume: most of it is fork(2) for mount(8), since the kernel copies the page tables of the whole process: 3 ms for a Node that
  holds 40 MiB, 18 ms for one that holds 140. Then come two records that are written through to the disk, and a connection of the caller's own.
`;
}

function tunnelsOf({ intercepted, blind }: TunnelComparisons): string {
  return `
The same blob, and the manifest with a TLS connection for each request, by the forward proxy: a CONNECT to a connector's registry, beside the same
by the proxy's own name; and a blind tunnel to the registry itself, beside haproxy with one thread that passes TCP on, which asks nobody who they are.

${comparisonTable(intercepted, { subject: ways.intercepted, yardstick: ways.reverse })}
${comparisonTable(blind, { subject: ways.blind, yardstick: ways.haproxy })}`;
}
