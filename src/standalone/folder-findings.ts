import { join } from "node:path";
import { showRef } from "../connector/connector-ref.ts";
import type { Level, LogFields } from "../log.ts";
import type { FolderContents } from "./folder-contents.ts";
import { type KeptFile, manifestInUse } from "./kept-file.ts";
import { credentialOf, ownCertificatesOf } from "./upstream-secrets.ts";

/** Something about the folder that a person should know. */
export interface Finding {
  readonly level: Level;
  readonly message: string;
  readonly fields: LogFields;
  /** Two findings with one key are the same, and are told once. */
  readonly key: string;
}

/** Everything there is to say about a folder's files, without a value of a Secret. */
export function folderFindings(
  folder: string,
  files: ReadonlyMap<string, KeptFile>,
  contents: FolderContents,
): readonly Finding[] {
  return [
    ...[...files].flatMap(([name, file]) => [...fileFindings(join(folder, name), file)]),
    ...contents.repeated.map(({ object, file, firstFile }) =>
      finding("warning", "an object is defined twice; the one in the first file by name is used", {
        file: join(folder, file),
        reason: `${object} is in ${firstFile} already: remove one of them`,
      }),
    ),
    ...connectorFindings(contents),
  ];
}

function* fileFindings(path: string, file: KeptFile): Generator<Finding> {
  const { problems, passedOver } = file.latest;
  if (problems.length > 0) {
    const used =
      file.lastGood === undefined
        ? "its valid documents are used"
        : "its last contents stay in use";
    const fields = { file: path, reason: problems.join("; ") };
    const message = `this file has an error; ${used} until it is corrected`;
    yield finding("error", message, fields, file.digest);
  }
  if (passedOver.length > 0) {
    const fields = { file: path, reason: passedOver.join(", ") };
    const message = "documents that are neither Connector nor Secret are ignored";
    yield finding("info", message, fields, file.digest);
  }
  if (file.openToAll && manifestInUse(file).secrets.length > 0) {
    const message = "every user of this machine can read a file with a Secret";
    yield finding("warning", message, { file: path, reason: `wanted: chmod o-rwx ${path}` });
  }
}

function* connectorFindings(contents: FolderContents): Generator<Finding> {
  for (const connector of contents.connectors.values()) {
    const credential = credentialOf(contents, connector);
    if (!credential.ok) {
      const fields = { connector: showRef(connector), reason: credential.reason };
      yield finding("warning", "this connector has no usable credential", fields);
    }
    const certificates = ownCertificatesOf(contents, connector);
    if (!certificates.ok) {
      const fields = { connector: showRef(connector), reason: certificates.reason };
      yield finding("warning", "this connector's caCertSecretRef adds no certificate", fields);
    }
  }
}

const finding = (level: Level, message: string, fields: LogFields, version = ""): Finding => ({
  level,
  message,
  fields,
  key: JSON.stringify([message, fields, version]),
});
