import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Cleanup } from "../test/support/cleanup.ts";
import type { Certificates } from "./certificates.ts";
import { type Comparison, type Measured, takeTurns } from "./comparison.ts";
import { mountVolume, namespace, startConnector } from "./connector-process.ts";
import { type Transfer, transfer, transferAnew } from "./curl.ts";
import { repository } from "./file-registry.ts";
import { startHaproxy } from "./haproxy.ts";
import type { Plan } from "./options.ts";
import { basic, type Registries } from "./registries.ts";

/** A way to the registry of files by TLS. */
interface Way extends Pick<Transfer, "authorization" | "authorityFile" | "proxy"> {
  readonly name: string;
  readonly pid: number;
  readonly repositoryUrl: string;
}

/** What is compared in forward mode, each with what does the same work. */
export interface TunnelComparisons {
  /** By CONNECT, of the same by the proxy's own name. */
  readonly intercepted: readonly Comparison[];
  /** By a blind tunnel, of haproxy that passes TCP on. */
  readonly blind: readonly Comparison[];
}

export const ways = {
  reverse: "the proxy's own name",
  intercepted: "CONNECT, intercepted",
  blind: "blind tunnel",
  haproxy: "haproxy, TCP",
} as const;

/** Of what the same costs by the proxy's own name. */
const throughputTarget = 0.8;
const connections = 16;

/** Pulls a blob, and asks for small things with a connection for each, by CONNECT and otherwise. */
export async function compareTunnels(
  resources: Cleanup,
  registries: Registries,
  certificates: Certificates,
  { rounds, blobBytes, newConnections }: Plan,
): Promise<TunnelComparisons> {
  const { digest } = registries.blob;
  const [reverse, intercepted, blind, haproxy] = await startWays(
    resources,
    registries,
    certificates,
  );
  const pull = ({ repositoryUrl, ...way }: Way): Promise<Measured> =>
    transfer({ ...way, url: `${repositoryUrl}/blobs/${digest}`, bytes: blobBytes });
  const connect = ({ repositoryUrl, ...way }: Way): Promise<Measured> => {
    const url = `${repositoryUrl}/manifests/tiny`;
    return transferAnew({ ...way, url, times: newConnections, connections });
  };
  const compare = async (
    pair: readonly [Way, Way],
    target: number | undefined,
  ): Promise<readonly Comparison[]> => [
    {
      label: "pull, TLS ← TLS",
      unit: "GB/s",
      target,
      samples: await takeTurns(pair, rounds, pull),
    },
    {
      label: `small GET, a connection for each, ${connections} at once`,
      unit: "requests/s",
      target: undefined,
      samples: await takeTurns(pair, rounds, connect),
    },
  ];
  return {
    intercepted: await compare([reverse, intercepted], throughputTarget),
    blind: await compare([haproxy, blind], undefined),
  };
}

async function startWays(
  resources: Cleanup,
  registries: Registries,
  certificates: Certificates,
): Promise<readonly [reverse: Way, intercepted: Way, blind: Way, haproxy: Way]> {
  const registry = registries.named["files-tls"];
  const connector = await startConnector(registries.named, certificates, ["--tunnel", "127.0.0.1"]);
  const { pid } = resources.add(connector.program);
  const volume = await mountVolume(connector, "tunnels", ["files-tls", "files"]);
  const token = (await readFile(join(volume, "context.token"), "utf8")).trim();
  const proxyFor = (name: string): string =>
    connector.http.replace("//", `//${namespace}%2F${name}:${encodeURIComponent(token)}@`);
  const { host } = new URL(registry.address);
  const haproxy = await startHaproxy(host);
  resources.add(haproxy.program);
  const authorityFile = join(volume, "ca.crt");
  const direct = {
    authorization: basic(registry.login),
    authorityFile: certificates.authorityFile,
  };
  const own = `https://${host}/v2/${repository}`;
  return [
    {
      name: ways.reverse,
      pid,
      authorityFile,
      authorization: `Basic ${Buffer.from(`any:${token}`).toString("base64")}`,
      repositoryUrl: `${connector.https}/v2/namespaces/${namespace}/connectors/files-tls/${repository}`,
    },
    {
      name: ways.intercepted,
      pid,
      authorityFile,
      authorization: "",
      repositoryUrl: own,
      proxy: proxyFor("files-tls"),
    },
    { name: ways.blind, pid, ...direct, repositoryUrl: own, proxy: proxyFor("files") },
    {
      name: ways.haproxy,
      pid: haproxy.program.pid,
      ...direct,
      repositoryUrl: `https://${haproxy.host}/v2/${repository}`,
    },
  ];
}
