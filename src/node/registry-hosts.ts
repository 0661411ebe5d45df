/** Keeps the folder in which containerd finds the mirror of each registry: `certs.d/<host>/hosts.toml`. */
import { join } from "node:path";
import { syncFolder } from "../durable-file.ts";
import { unless } from "../error-code.ts";
import { caFileName, isOwn, renderHostsToml } from "./hosts-toml.ts";
import {
  type NodeFiles,
  readNodeFile,
  removeNodeFile,
  unfinished,
  writeNodeFile,
} from "./node-file.ts";

/** How the hosts of a node reach its proxy. */
export interface ProxyEndpoint {
  /** `https://10.96.0.7` */
  readonly url: string;
  /** PEM of the authorities that sign its certificate. */
  readonly caCertificates: string;
}

/** A registry whose images a node does not pull through the proxy, and why. */
export interface SkippedHost {
  readonly host: string;
  readonly reason: string;
}

/** The folder in which one for a registry is made and taken apart. No host of a registry begins with a dot. */
const workshop = ".oci-connector";

/**
 * Has containerd pull images of some registries through the proxy. The certificates are written before what names them,
 * and a folder that was not there appears with both.
 * @param folder `certs.d`
 * @param hosts as images' names begin with them
 * @returns those for which somebody else has said something already, which stays
 */
export async function writeRegistryHosts(
  files: NodeFiles,
  folder: string,
  hosts: readonly string[],
  { url, caCertificates }: ProxyEndpoint,
): Promise<readonly SkippedHost[]> {
  const skipped: SkippedHost[] = [];
  const writeInto = async (target: string): Promise<void> => {
    await writeNodeFile(files, join(target, caFileName), caCertificates, 0o644);
    await writeNodeFile(files, join(target, "hosts.toml"), renderHostsToml(url), 0o644);
  };
  await clearWorkshop(files, folder);
  for (const host of hosts) {
    const foreign = await findForeign(files, folder, host);
    if (foreign !== undefined) {
      const reason = `${foreign} was not written by oci-connector: remove it, or take the registry out of NODE_IMAGE_HOSTS`;
      skipped.push({ host, reason });
      continue;
    }
    const own = join(folder, host);
    const isThere = await files.lstat(own).catch(unless(undefined, "ENOENT"));
    if (isThere) {
      await writeInto(own);
      continue;
    }
    await files.mkdir(join(folder, workshop), { mode: 0o755 });
    await writeInto(join(folder, workshop));
    await files.rename(join(folder, workshop), own);
    await syncFolder(files, folder);
  }
  return skipped;
}

/**
 * Removes what is ours of every registry but some. A folder in which nothing else is goes at once; in another one, the
 * file that names the certificates goes before them.
 * @param keep the hosts of the registries that stay
 */
export async function removeRegistryHosts(
  files: NodeFiles,
  folder: string,
  keep: ReadonlySet<string>,
): Promise<void> {
  await clearWorkshop(files, folder);
  const hosts = await files.readdir(folder).catch(unless([], "ENOENT"));
  for (const host of hosts.filter((name) => !keep.has(name))) {
    const own = join(folder, host);
    const toml = join(own, "hosts.toml");
    const content = await readNodeFile(files, toml);
    const isForeign = content !== undefined && !isOwn(content);
    const names = await files.readdir(own).catch(unless([], "ENOTDIR"));
    if (!isForeign && names.length > 0 && names.every(isOwnName)) {
      await files.rename(own, join(folder, workshop));
      await clearWorkshop(files, folder);
    } else {
      if (!isForeign) await removeNodeFile(files, toml);
      await removeNodeFile(files, join(own, caFileName));
    }
  }
}

const ownNames = ["hosts.toml", caFileName];
const isOwnName = (name: string): boolean =>
  ownNames.some((own) => name === own || name === unfinished(own));

/** Removes what an installation or a removal that was killed has left. */
async function clearWorkshop(files: NodeFiles, folder: string): Promise<void> {
  const path = join(folder, workshop);
  for (const name of ownNames) await removeNodeFile(files, join(path, name));
  await files.rmdir(path).catch(unless(undefined, "ENOENT"));
  await syncFolder(files, folder).catch(unless(undefined, "ENOENT"));
}

/**
 * The file of somebody else that says where containerd finds a registry. A host with a port has two folders, and
 * containerd takes the one without a colon first.
 */
async function findForeign(
  files: NodeFiles,
  folder: string,
  host: string,
): Promise<string | undefined> {
  const port = /^(.*):(\d+)$/.exec(host);
  const names = port === null ? [host] : [`${port[1]}_${port[2]}_`, host];
  for (const name of names) {
    const path = join(folder, name, "hosts.toml");
    const content = await readNodeFile(files, path);
    if (content !== undefined && !isOwn(content)) return path;
  }
  return undefined;
}
