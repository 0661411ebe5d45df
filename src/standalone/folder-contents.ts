import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { type KeptFile, manifestInUse } from "./kept-file.ts";
import type { SecretDocument } from "./secret-document.ts";

/** All objects of a folder, by `namespace/name`. */
export interface FolderContents {
  readonly connectors: ReadonlyMap<string, Connector>;
  readonly secrets: ReadonlyMap<string, SecretDocument>;
  /** Connectors that are there but wrong, and why. */
  readonly invalid: ReadonlyMap<string, string>;
  /** Objects that a second file holds too, or the same one once more. */
  readonly repeated: readonly Repeated[];
}

export interface Repeated {
  readonly object: string;
  /** The file that is not listened to. */
  readonly file: string;
  /** The file that holds what counts. */
  readonly firstFile: string;
}

/** Puts files together. Of an object in two files, the one of the first file counts. */
export function folderContents(files: ReadonlyMap<string, KeptFile>): FolderContents {
  const connectors = new Map<string, Connector>();
  const secrets = new Map<string, SecretDocument>();
  const invalid = new Map<string, string>();
  const repeated: Repeated[] = [];
  const owners = new Map<string, string>();
  for (const [file, kept] of files) {
    const manifest = manifestInUse(kept);
    const addFirst = <T extends ConnectorRef>(
      kind: string,
      into: Map<string, T>,
      item: T,
    ): void => {
      const ref = showRef(item);
      const object = `${kind} ${ref}`;
      const firstFile = owners.get(object);
      if (firstFile !== undefined) repeated.push({ object, file, firstFile });
      else {
        owners.set(object, file);
        into.set(ref, item);
      }
    };
    for (const connector of manifest.connectors) addFirst("Connector", connectors, connector);
    for (const secret of manifest.secrets) addFirst("Secret", secrets, secret);
    for (const [ref, reason] of kept.latest.invalid) invalid.set(ref, `${file}: ${reason}`);
  }
  return { connectors, secrets, invalid, repeated };
}
