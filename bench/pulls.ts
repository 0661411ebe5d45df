import { type Comparison, takeTurns } from "./comparison.ts";
import type { Contestant, Scheme } from "./contestants.ts";
import { transfer } from "./curl.ts";
import type { Blob } from "./file-registry.ts";
import type { Plan } from "./options.ts";
import type { RegistryName } from "./registries.ts";

const target = 0.7;

const rows: readonly { label: string; scheme: Scheme; registry: RegistryName }[] = [
  { label: "pull, HTTP ← HTTP", scheme: "http", registry: "files" },
  { label: "pull, TLS ← HTTP", scheme: "https", registry: "files" },
  { label: "pull, HTTP ← TLS", scheme: "http", registry: "files-tls" },
  { label: "pull, TLS ← TLS", scheme: "https", registry: "files-tls" },
];

/** One blob from the registry of files, with TLS on neither side, on one, on both. */
export async function comparePulls(
  contestants: readonly Contestant[],
  { digest, bytes }: Blob,
  { rounds }: Plan,
): Promise<readonly Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const { label, scheme, registry } of rows) {
    const samples = await takeTurns(contestants, rounds, (contestant) =>
      transfer({
        url: `${contestant.repositoryUrl(scheme, registry)}/blobs/${digest}`,
        authorization: contestant.authorization(registry),
        authorityFile: contestant.authorityFile,
        bytes,
      }),
    );
    comparisons.push({ label, unit: "GB/s", samples, target });
  }
  return comparisons;
}
