/** What roles require of their platform, implemented by a folder of YAML: see `connector/platform.ts`. */
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
  clientCertificateOf,
  credentialOf,
  type FolderContents,
  ownCertificatesOf,
  sharedCertificates,
} from "./folder-contents.ts";

type Folder = Pick<ConnectorFolder, "path" | "contents" | "rescan">;

/**
 * Finds connectors in a folder. The folder is read again before a connector counts as missing, since a script may write
 * a file and mount a volume in the next line.
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
 * Reads the Secrets of connectors in a folder. The results are kept until the folder is read again, which `fresh`
 * does at once. A missing CA Secret adds no certificates and is no refusal, as in a cluster. The folder's log names it.
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
  const certificate = clientCertificateOf(contents, connector);
  if (!certificate.ok) return { ok: false, reason: `in ${path}: ${certificate.reason}` };
  const own = ownCertificatesOf(contents, connector);
  const caCertificates = [...(own.ok ? own.value : []), ...sharedCertificates(contents)];
  const secrets = { credential: credential.value, caCertificates };
  return certificate.value === undefined
    ? { ok: true, value: secrets }
    : { ok: true, value: { ...secrets, clientCertificate: certificate.value } };
}

/**
 * Allows a volume's token to use the connectors that the volume names, for pulls and pushes alike. A requester without
 * such a list is about to mount a volume, and whoever may mount may name any connector.
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
