import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type {
  FindConnector,
  FoundConnector,
  MayUse,
  ReadUpstreamSecrets,
  Result,
  UpstreamSecrets,
} from "../connector/platform.ts";
import type { ConnectorFolder } from "./connector-folder.ts";
import {
  credentialOf,
  type FolderContents,
  ownCertificatesOf,
  sharedCertificates,
} from "./folder-contents.ts";

type Folder = Pick<ConnectorFolder, "path" | "contents" | "rescan">;

/**
 * Finds connectors in a folder. One that is not there is looked for anew: a script writes a file and
 * mounts a volume in the next line.
 */
export const findInFolder =
  (folder: Folder): FindConnector =>
  async (ref) => {
    const known = lookUp(folder, ref);
    if (known.state === "found") return known;
    await folder.rescan();
    return lookUp(folder, ref);
  };

function lookUp(folder: Folder, ref: ConnectorRef): FoundConnector {
  const { connectors, invalid } = folder.contents();
  const key = showRef(ref);
  const connector = connectors.get(key);
  if (connector !== undefined) return { state: "found", connector };
  const wrong = invalid.get(key);
  if (wrong !== undefined) return { state: "invalid", reason: `${folder.path}/${wrong}` };
  const present = [...connectors.keys()].sort().join(", ") || "none";
  const reason = `there is no Connector ${key} in ${folder.path}; the folder has: ${present}`;
  return { state: "missing", reason };
}

/**
 * Reads Secrets in a folder, each once for what the folder holds now; `fresh` reads the folder anew.
 * A CA Secret that is missing adds nothing, as in a cluster, where it doesn't make a connector unready
 * either; the folder's log tells of it.
 */
export function secretsInFolder(folder: Folder): ReadUpstreamSecrets {
  const known = new WeakMap<FolderContents, WeakMap<Connector, Result<UpstreamSecrets>>>();
  return async (connector, options) => {
    if (options?.fresh) await folder.rescan();
    const contents = folder.contents();
    const results = known.get(contents) ?? new WeakMap<Connector, Result<UpstreamSecrets>>();
    const result = results.get(connector) ?? secretsIn(contents, connector, folder.path);
    known.set(contents, results.set(connector, result));
    return result;
  };
}

function secretsIn(
  contents: FolderContents,
  connector: Connector,
  path: string,
): Result<UpstreamSecrets> {
  const credential = credentialOf(contents, connector);
  if (!credential.ok) return { ok: false, reason: `in ${path}: ${credential.reason}` };
  const own = ownCertificatesOf(contents, connector);
  const caCertificates = [...(own.ok ? own.value : []), ...sharedCertificates(contents)];
  return { ok: true, value: { credential: credential.value, caCertificates } };
}

/**
 * A volume's token opens the connectors that the volume names, for pulls and pushes alike. Who has
 * no such list asks for a volume that is about to be mounted, and whoever may mount may name any.
 */
export const mayUseNamed: MayUse = async ({ connectors }, connector) => {
  const ref = showRef(connector);
  if (connectors === undefined || connectors.includes(ref)) return { ok: true, value: undefined };
  const opened = connectors.join(", ") || "nothing";
  return {
    ok: false,
    reason: `this volume opens ${opened}, not ${ref}: mount a volume that names it`,
  };
};
