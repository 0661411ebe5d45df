import type { Cleanup } from "../test/support/cleanup.ts";
import { unpublishVolume } from "../test/support/csi-calls.ts";
import { residentMebibytes } from "../test/support/process-view.ts";
import { median, quantile } from "../test/support/statistics.ts";
import type { Certificates } from "./certificates.ts";
import { type ConnectorProcess, mountVolume, startConnector } from "./connector-process.ts";
import type { Figure } from "./figure.ts";
import type { Plan } from "./options.ts";
import type { Registries } from "./registries.ts";

/** As many Pods as a kubelet runs unless told otherwise. */
const podsOfANode = 110;

/** Publishes volumes through the CSI socket, as a kubelet would, and looks at the clock. */
export async function measureVolumes(
  resources: Cleanup,
  { named }: Registries,
  certificates: Certificates,
  { rounds, volumesInARow }: Plan,
): Promise<readonly Figure[]> {
  const connector = await startConnector(named, certificates);
  resources.add(connector.program);
  const { pid } = connector.program;
  const atFirst = await residentMebibytes(pid);
  await publishInARow(connector, 5); // the first ones also compile
  const single = await publishInARow(connector, volumesInARow);
  const published: Burst[] = [];
  const republished: Burst[] = [];
  let resident = atFirst;
  for (let round = 0; round < rounds; round += 1) {
    const names = Array.from({ length: podsOfANode }, (_, index) => `pod-${round}-${index}`);
    published.push(await publishAtOnce(connector, names));
    republished.push(await publishAtOnce(connector, names));
    resident = Math.max(resident, await residentMebibytes(pid));
    for (const name of names) await unpublish(connector, name);
  }
  const burst = (bursts: readonly Burst[], key: keyof Burst): number =>
    median(bursts.map((one) => one[key]));
  return [
    { label: "publish one volume, p50", value: median(single), unit: "ms", target: 10 },
    { label: "publish one volume, p99", value: quantile(single, 0.99), unit: "ms" },
    {
      label: `publish ${podsOfANode} at once, p99`,
      value: burst(published, "p99"),
      unit: "ms",
      target: 1000,
    },
    { label: `publish ${podsOfANode} at once, all`, value: burst(published, "total"), unit: "ms" },
    {
      label: `republish ${podsOfANode} at once, p99`,
      value: burst(republished, "p99"),
      unit: "ms",
      target: 300,
    },
    {
      label: `republish ${podsOfANode} at once, all`,
      value: burst(republished, "total"),
      unit: "ms",
    },
    { label: "memory (RSS) when started", value: atFirst, unit: "MiB" },
    { label: `memory (RSS) with ${podsOfANode} volumes, most`, value: resident, unit: "MiB" },
  ];
}

/** In milliseconds. */
interface Burst {
  readonly p99: number;
  readonly total: number;
}

async function publishInARow(connector: ConnectorProcess, count: number): Promise<number[]> {
  const durations: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const name = `single-${index}`;
    durations.push(await durationOf(() => mountVolume(connector, name, ["files"])));
    await unpublish(connector, name);
  }
  return durations;
}

async function publishAtOnce(
  connector: ConnectorProcess,
  names: readonly string[],
): Promise<Burst> {
  const durations = await Promise.all(
    names.map((name) => durationOf(() => mountVolume(connector, name, ["files"]))),
  );
  return { p99: quantile(durations, 0.99), total: Math.max(...durations) };
}

const unpublish = ({ socket, volumes }: ConnectorProcess, volumeId: string): Promise<void> =>
  unpublishVolume(socket, { volumeId, targetPath: `${volumes}/${volumeId}` });

async function durationOf(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return performance.now() - start;
}
