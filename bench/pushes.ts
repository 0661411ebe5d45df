import { readFile } from "node:fs/promises";
import { plainRequest } from "../test/support/plain-request.ts";
import { type Comparison, takeTurns } from "./comparison.ts";
import type { Contestant, Scheme } from "./contestants.ts";
import { transfer } from "./curl.ts";
import type { Blob } from "./file-registry.ts";
import type { Plan } from "./options.ts";
import type { RegistryName } from "./registries.ts";

const target = 0.9;

const rows: readonly { label: string; scheme: Scheme; registry: RegistryName }[] = [
  { label: "push, HTTP → byte counter", scheme: "http", registry: "sink" },
  { label: "push, TLS → byte counter", scheme: "https", registry: "sink" },
  { label: "push, HTTP → docker-registry", scheme: "http", registry: "docker" },
];

/** One blob as containerd sends it, a POST and then one PUT: to what only counts, and to a real registry. */
export async function comparePushes(
  contestants: readonly Contestant[],
  blob: Blob,
  { rounds }: Plan,
): Promise<readonly Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const { label, scheme, registry } of rows) {
    const able = contestants.filter(
      ({ pid }) => pid !== undefined || scheme === "http", // neither of the two speaks TLS itself
    );
    const samples = await takeTurns(able, rounds, async (contestant) => {
      const { authorityFile } = contestant;
      const authorization = contestant.authorization(registry);
      const url = await beginUpload(contestant, scheme, registry);
      url.searchParams.append("digest", blob.digest);
      const { path: upload, bytes } = blob;
      return transfer({ url: url.href, authorization, authorityFile, upload, bytes });
    });
    comparisons.push({ label, unit: "GB/s", samples, target });
  }
  return comparisons;
}

/** @returns where the blob is to be sent to */
async function beginUpload(
  contestant: Contestant,
  scheme: Scheme,
  registry: RegistryName,
): Promise<URL> {
  const url = `${contestant.repositoryUrl(scheme, registry)}/blobs/uploads/`;
  const { status, headers } = await plainRequest(url, {
    method: "POST",
    headers: { authorization: contestant.authorization(registry), "content-length": "0" },
    ca: await readFile(contestant.authorityFile, "utf8"),
  });
  if (status !== 202) throw new Error(`${contestant.name}: POST ${url} has status ${status}`);
  return new URL(headers.location ?? "", url);
}
