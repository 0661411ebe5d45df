import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { type ApiAccess, createInClusterAccess } from "../../src/kube/api-access.ts";
import type { Cluster } from "./cluster.ts";

/**
 * The access of a Pod of some ServiceAccount: by the files that the kubelet would give to it.
 * @param folder where the files are put
 */
export async function accessAs(
  { kubeconfig, kubectl }: Pick<Cluster, "kubeconfig" | "kubectl">,
  account: { readonly namespace: string; readonly name: string },
  folder: string,
): Promise<ApiAccess> {
  const { clusters } = parse(await readFile(kubeconfig, "utf8")) as {
    clusters: [{ cluster: { server: string; "certificate-authority-data": string } }];
  };
  const { server, "certificate-authority-data": ca } = clusters[0].cluster;
  const token = await kubectl(["create", "token", account.name, "-n", account.namespace]);
  await writeFile(join(folder, "token"), token);
  await writeFile(join(folder, "ca.crt"), Buffer.from(ca, "base64"));
  const { hostname, port } = new URL(server);
  return createInClusterAccess({ host: hostname, port, folder });
}
