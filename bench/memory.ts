import { setTimeout as sleep } from "node:timers/promises";
import type { Cleanup } from "../test/support/cleanup.ts";
import { residentMebibytes } from "../test/support/process-view.ts";
import type { Certificates } from "./certificates.ts";
import { type Scheme, startConnectorContestant } from "./contestants.ts";
import { readSlowly } from "./curl.ts";
import type { Figure } from "./figure.ts";
import type { Plan } from "./options.ts";
import type { Registries, RegistryName } from "./registries.ts";

const clients = 100;
const bytesPerSecond = 1024 * 1024;
const target = 150;

const cases: readonly { label: string; scheme: Scheme; registry: RegistryName }[] = [
  { label: "HTTP ← HTTP", scheme: "http", registry: "files" },
  { label: "TLS ← TLS", scheme: "https", registry: "files-tls" },
];

/** What a fresh proxy holds while many clients pull more slowly than the registry could give. */
export async function measureMemory(
  resources: Cleanup,
  registries: Registries,
  certificates: Certificates,
  { pullSeconds }: Plan,
): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const { label, scheme, registry } of cases) {
    const contestant = await startConnectorContestant(resources, registries, certificates);
    const pulls = readSlowly({
      url: `${contestant.repositoryUrl(scheme, registry)}/blobs/${registries.blob.digest}`,
      authorization: contestant.authorization(registry),
      authorityFile: contestant.authorityFile,
      clients,
      bytesPerSecond,
      seconds: pullSeconds,
    });
    const most = await mostResident(contestant.pid, pulls);
    const busy = (await pulls).filter((bytes) => bytes > 0).length;
    if (busy < clients) throw new Error(`only ${busy} of ${clients} clients have read anything`);
    await sleep(5000);
    const what = `memory (RSS), ${clients} pulls at once, ${label}`;
    figures.push(
      { label: `${what}: most`, value: most, unit: "MiB", target },
      {
        label: `${what}: 5 s after`,
        value: await residentMebibytes(contestant.pid),
        unit: "MiB",
      },
    );
  }
  return figures;
}

async function mostResident(pid: number, until: Promise<unknown>): Promise<number> {
  let most = 0;
  let isOver = false;
  const end = until.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    most = Math.max(most, await residentMebibytes(pid));
    await sleep(50);
  }
  await end;
  return most;
}
