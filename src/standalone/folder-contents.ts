import { join } from "node:path";
import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { type Credential, parseCertificates, parseCredential } from "../connector/credential.ts";
import type { Result } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import type { LogFields, LogLevel } from "../log.ts";
import { documentsInUse, type KeptFile } from "./folder-file.ts";
import type { SecretDocument } from "./secret-document.ts";

/** All objects of a folder, by `namespace/name`. */
export interface FolderContents {
  readonly connectors: ReadonlyMap<string, Connector>;
  readonly secrets: ReadonlyMap<string, SecretDocument>;
  /** Connectors that are there but wrong, and why. */
  readonly invalid: ReadonlyMap<string, string>;
  /** Objects that a second file holds too, or the same one once more. */
  readonly duplicates: readonly DuplicateObject[];
}

export interface DuplicateObject {
  readonly object: string;
  /** The file that is not listened to. */
  readonly file: string;
  /** The file that holds what counts. */
  readonly firstFile: string;
}

/** Puts files together. Of an object in two files, the one of the first file counts. */
export function createFolderContents(files: ReadonlyMap<string, KeptFile>): FolderContents {
  const connectors = new Map<string, Connector>();
  const secrets = new Map<string, SecretDocument>();
  const invalid = new Map<string, string>();
  const duplicates: DuplicateObject[] = [];
  const owners = new Map<string, string>();
  for (const [file, kept] of files) {
    const manifest = documentsInUse(kept);
    const addFirst = <T extends ConnectorRef>(
      kind: string,
      into: Map<string, T>,
      item: T,
    ): void => {
      const ref = showRef(item);
      const object = `${kind} ${ref}`;
      const firstFile = owners.get(object);
      if (firstFile !== undefined) duplicates.push({ object, file, firstFile });
      else {
        owners.set(object, file);
        into.set(ref, item);
      }
    };
    for (const connector of manifest.connectors) addFirst("Connector", connectors, connector);
    for (const secret of manifest.secrets) addFirst("Secret", secrets, secret);
    for (const [ref, reason] of kept.latest.invalid) invalid.set(ref, `${file}: ${reason}`);
  }
  return { connectors, secrets, invalid, duplicates };
}

/** The credential of a connector, or what its Secret lacks; undefined for an anonymous connector. */
export function credentialOf(
  { secrets }: Pick<FolderContents, "secrets">,
  { namespace, secretName }: Connector,
): Result<Credential | undefined> {
  if (secretName === undefined) return { ok: true, value: undefined };
  const ref = showRef({ namespace, name: secretName });
  const secret = secrets.get(ref);
  if (secret === undefined) {
    const reason = `there is no Secret ${ref}: add it, with username and password, or remove auth.secretRef`;
    return { ok: false, reason };
  }
  const credential = parseCredential(secret.document);
  if (credential.ok) return credential;
  return { ok: false, reason: `Secret ${ref}: ${describeProblems(credential.problems)}` };
}

/** The certificates of the connector's own Secret, or why there are none. */
export function ownCertificatesOf(
  { secrets }: Pick<FolderContents, "secrets">,
  { namespace, caCertSecretName }: Connector,
): Result<readonly string[]> {
  if (caCertSecretName === undefined) return { ok: true, value: [] };
  const ref = showRef({ namespace, name: caCertSecretName });
  const secret = secrets.get(ref);
  if (secret === undefined) return { ok: false, reason: `there is no Secret ${ref}` };
  const certificates = parseCertificates(secret.document);
  if (certificates.length > 0) return { ok: true, value: certificates };
  return { ok: false, reason: `Secret ${ref} holds no PEM certificate` };
}

/** The certificates that are trusted for every connector. */
export const sharedCertificates = ({
  secrets,
}: Pick<FolderContents, "secrets">): readonly string[] =>
  [...secrets.values()]
    .filter(({ trustedByAll }) => trustedByAll)
    .flatMap(({ document }) => parseCertificates(document));

/** Something about the folder that a person should know. */
export interface FolderProblem {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
  /** Two findings with one key are the same, and are told once. */
  readonly key: string;
}

/** Everything there is to say about a folder's files, without a value of a Secret. */
export function folderProblems(
  folder: string,
  files: ReadonlyMap<string, KeptFile>,
  contents: FolderContents,
): readonly FolderProblem[] {
  return [
    ...[...files].flatMap(([name, file]) => [...fileProblems(join(folder, name), file)]),
    ...contents.duplicates.map(({ object, file, firstFile }) =>
      createFolderProblem(
        "warning",
        "an object is defined twice; the one in the first file by name is used",
        {
          file: join(folder, file),
          reason: `${object} is in ${firstFile} already: remove one of them`,
        },
      ),
    ),
    ...connectorProblems(contents),
  ];
}

function* fileProblems(path: string, file: KeptFile): Generator<FolderProblem> {
  const { problems, ignored } = file.latest;
  if (problems.length > 0) {
    const used =
      file.lastGood === undefined
        ? "its valid documents are used"
        : "its last contents stay in use";
    const fields = { file: path, reason: problems.join("; ") };
    const message = `this file has an error; ${used} until it is corrected`;
    yield createFolderProblem("error", message, fields, file.digest);
  }
  if (ignored.length > 0) {
    const fields = { file: path, reason: ignored.join(", ") };
    const message = "documents that are neither Connector nor Secret are ignored";
    yield createFolderProblem("info", message, fields, file.digest);
  }
  if (file.openToAll && documentsInUse(file).secrets.length > 0) {
    const message = "every user of this machine can read a file with a Secret";
    yield createFolderProblem("warning", message, {
      file: path,
      reason: `wanted: chmod o-rwx ${path}`,
    });
  }
}

function* connectorProblems(contents: FolderContents): Generator<FolderProblem> {
  for (const connector of contents.connectors.values()) {
    const credential = credentialOf(contents, connector);
    if (!credential.ok) {
      const fields = { connector: showRef(connector), reason: credential.reason };
      yield createFolderProblem("warning", "this connector has no usable credential", fields);
    }
    const certificates = ownCertificatesOf(contents, connector);
    if (!certificates.ok) {
      const fields = { connector: showRef(connector), reason: certificates.reason };
      yield createFolderProblem(
        "warning",
        "this connector's caCertSecretRef adds no certificate",
        fields,
      );
    }
  }
}

const createFolderProblem = (
  level: LogLevel,
  message: string,
  fields: LogFields,
  version = "",
): FolderProblem => ({
  level,
  message,
  fields,
  key: JSON.stringify([message, fields, version]),
});
