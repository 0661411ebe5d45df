/** The bench itself; `bench.ts` starts it in a namespace of its own. */
import { writeFile } from "node:fs/promises";
import { type Cleanup, cleanup } from "../test/support/cleanup.ts";
import { paragraph } from "../test/support/markdown.ts";
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
  const about = paragraph(`
    \`npm run bench\` has written this: ${machine}; everything on the loopback interface of one machine. Ratios are
    more reliable than absolute figures, which depend on the machine and on its other load.`);
  return `# Benchmarks: the connector beside nginx\n\n${about}`;
}

function comparisonsOf({ blobBytes, rounds }: Plan, compared: readonly Comparison[]): string {
  const about = paragraph(`
    curl moves a blob of ${blobBytes / 1024 / 1024} MiB from an nginx that serves files by sendfile and requires a
    login, to a process that counts bytes, and to docker-registry. wrk requests a tiny manifest. The contestants take
    turns, ${rounds} rounds in all. Cells are medians; in parentheses is the median of the ratios to nginx in the same
    round. "CPU" is the proxy's own CPU time for the same work, as a ratio to nginx's. Both write one log line for each
    request.`);
  return `
${about}
- direct: no proxy, the limit
- nginx: a reverse proxy, one process, that adds a fixed Authorization, with its default buffers
- nginx, 8 × 1 MiB: the same with \`proxy_buffers 8 1m\`
- oci-connector: \`oci-connector standalone\`, one process, compiled and with the settings of the image, with a mounted
  volume whose token is verified for each request

${comparisonTable(compared)}
${whereTimeGoes()}`;
}

function whereTimeGoes(): string {
  return `Where the time goes, according to \`node --cpu-prof\` and \`strace\`:

- Pulls: the kernel's copy from one socket to the other and, with TLS, the ciphers. The proxy reads into the same two
  buffers again and again, of 1 MiB each for one pull (256 KiB with TLS) and down to 16 KiB for a hundred. Digests are
  hashed for 32 MiB at once and 128 MiB a second after that, so most of a blob of this benchmark is not hashed; a blob
  from a gigabit network is checked to its end.
- Pushes: the kernel's copy and, with TLS, the cipher, whose records of 16 KiB each cost a call from Node and a copy.
  Data that arrives in one turn of the event loop is written to the registry at once; if records were written one by
  one, they would cost half as much CPU again.
- Small requests: a quarter is the two system calls that write and the streams around them; a third is Node's HTTP
  server, its garbage collector and the request to the registry; a third is the proxy's own checks: token, rights,
  rules, limits, headers in both directions, and the audit line. One hash of the token is 4 %. A node:http server that
  only says hello takes as much of a core for a response as nginx takes for forwarding one.
- Publishing a volume: most of it is fork(2) for mount(8), since the kernel copies the page tables of the whole process:
  3 ms for a Node process of 40 MiB, 18 ms for one of 140 MiB. The rest is two records that are synced to the disk, and
  a connection of the caller.
`;
}

function tunnelsOf({ intercepted, blind }: TunnelComparisons): string {
  return `
The same blob, and the manifest with a new TLS connection for each request, through the forward proxy: a CONNECT to a
connector's registry, compared with requests to the proxy's own name; and a blind tunnel to the registry itself,
compared with haproxy, which forwards TCP with one thread and does not authenticate clients.

${comparisonTable(intercepted, { subject: ways.intercepted, yardstick: ways.reverse })}
${comparisonTable(blind, { subject: ways.blind, yardstick: ways.haproxy })}`;
}
