import { type Comparison, takeTurns } from "./comparison.ts";
import type { Contestant, Scheme } from "./contestants.ts";
import { transfer } from "./curl.ts";
import type { Blob } from "./file-registry.ts";
import type { Plan } from "./options.ts";
import type { RegistryName } from "./registries.ts";

interface Row {
  readonly label: string;
  readonly scheme: Scheme;
  readonly registry: RegistryName;
  readonly target: number;
}

const rows: readonly Row[] = [
  { label: "pull, HTTP ← HTTP", scheme: "http", registry: "files", target: 1.3 },
  { label: "pull, TLS ← HTTP", scheme: "https", registry: "files", target: 1 },
  { label: "pull, HTTP ← TLS", scheme: "http", registry: "files-tls", target: 1 },
  { label: "pull, TLS ← TLS", scheme: "https", registry: "files-tls", target: 1 },
];

/** One blob from the registry of files, with TLS on neither side, on one, on both. */
export async function comparePulls(
  contestants: readonly Contestant[],
  { digest, bytes }: Blob,
  { rounds }: Plan,
): Promise<readonly Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const { label, scheme, registry, target } of rows) {
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
