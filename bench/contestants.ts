import { join } from "node:path";
import type { Cleanup } from "../test/support/cleanup.ts";
import type { Certificates } from "./certificates.ts";
import {
  mountVolume,
  namespace,
  startConnector,
  volumeAuthorization,
} from "./connector-process.ts";
import { repository } from "./file-registry.ts";
import { startNginxProxy } from "./nginx-proxy.ts";
import { basic, type Registries, type RegistryName } from "./registries.ts";

export type Scheme = "http" | "https";

/** A way to a registry. */
export interface Contestant {
  readonly name: string;
  /** Of the proxy; undefined without one. */
  readonly pid: number | undefined;
  /** What comes before `/blobs/…` for a client that uses this scheme. */
  repositoryUrl(scheme: Scheme, registry: RegistryName): string;
  /** What the client has to send as its Authorization; proxies that let everybody in get it all the same. */
  authorization(registry: RegistryName): string;
  /** PEM, for the client to verify by. */
  readonly authorityFile: string;
}

/** The figures of the others are compared with this one's. */
export const yardstick = "nginx";
export const largeBuffers = "nginx, 8 × 1 MiB";
export const connectorName = "oci-connector";

/** No proxy, nginx as most people have it and with large buffers, and the connector. */
export async function startContestants(
  resources: Cleanup,
  registries: Registries,
  certificates: Certificates,
): Promise<readonly Contestant[]> {
  const nginx = (name: string, settings: string): Promise<Contestant> =>
    startNginxContestant(name, settings, resources, registries, certificates);
  return [
    direct(registries, certificates),
    await nginx(yardstick, ""),
    await nginx(largeBuffers, "proxy_buffers 8 1m;"),
    await startConnectorContestant(resources, registries, certificates),
  ];
}

/** The registry itself, by the scheme that the client uses. */
const direct = ({ named }: Registries, { authorityFile }: Certificates): Contestant => ({
  name: "direct",
  pid: undefined,
  repositoryUrl(scheme, name) {
    const isFiles = name === "files" || name === "files-tls";
    const spoken = isFiles ? (scheme === "http" ? "files" : "files-tls") : name;
    return `${named[spoken].address}/v2/${repository}`;
  },
  authorization: (name) => basic(named[name].login),
  authorityFile,
});

async function startNginxContestant(
  name: string,
  settings: string,
  resources: Cleanup,
  registries: Registries,
  certificates: Certificates,
): Promise<Contestant> {
  const { http, https, program } = await startNginxProxy(registries, certificates, settings);
  resources.add(program);
  return {
    name,
    pid: program.pid,
    repositoryUrl: (scheme, registry) =>
      `${scheme === "http" ? http : https}/${registry}/v2/${repository}`,
    authorization: () => "Basic bm86Ym9keQ==",
    authorityFile: certificates.authorityFile,
  };
}

/** The connector in a fresh process, with a volume that opens every registry. */
export async function startConnectorContestant(
  resources: Cleanup,
  registries: Registries,
  certificates: Certificates,
): Promise<Contestant & { readonly pid: number }> {
  const started = await startConnector(registries.named, certificates);
  resources.add(started.program);
  const volume = await mountVolume(started, "contestant", Object.keys(registries.named));
  const authorization = await volumeAuthorization(volume);
  return {
    name: connectorName,
    pid: started.program.pid,
    repositoryUrl: (scheme, registry) =>
      `${started[scheme]}/v2/namespaces/${namespace}/connectors/${registry}/${repository}`,
    authorization: () => authorization,
    authorityFile: join(volume, "ca.crt"),
  };
}
