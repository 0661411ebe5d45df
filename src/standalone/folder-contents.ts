import { join } from "node:path";
import { type Connector, loginAddressOf } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import {
  type ClientCertificate,
  type Credential,
  parseCertificates,
  parseClientCertificate,
  parseCredential,
} from "../connector/credential.ts";
import type { Result } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import type { LogFields, LogLevel } from "../log.ts";
import { documentsInUse, type KeptFile } from "./folder-file.ts";
import type { SecretDocument } from "./secret-document.ts";

/** All objects of a folder. */
export interface FolderContents {
  /** Connectors by `namespace/name`. */
  readonly connectors: ReadonlyMap<string, Connector>;
  /** Secrets by `namespace/name`. */
  readonly secrets: ReadonlyMap<string, SecretDocument>;
  /** What is wrong with each invalid Connector, by `namespace/name`. */
  readonly invalid: ReadonlyMap<string, string>;
  /** What is wrong with each file that has an error now, by its name. */
  readonly broken: ReadonlyMap<string, readonly string[]>;
  /** Objects that are ignored since a file before, or the same file, has the same object. */
  readonly duplicates: readonly DuplicateObject[];
}

/** An object that is in the folder twice. */
export interface DuplicateObject {
  /** The kind and `namespace/name`. */
  readonly object: string;
  /** The file whose object is ignored. */
  readonly file: string;
  /** The file whose object is in use. */
  readonly firstFile: string;
}

/** Combines the objects of all files. Of an object in two files, that of the first file by name is in use. */
export function createFolderContents(files: ReadonlyMap<string, KeptFile>): FolderContents {
  const connectors = new Map<string, Connector>();
  const secrets = new Map<string, SecretDocument>();
  const invalid = new Map<string, string>();
  const broken = new Map<string, readonly string[]>();
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
    const { latest } = kept;
    for (const [ref, reason] of latest.invalid) invalid.set(ref, `${file}: ${reason}`);
    if (latest.problems.length > 0) broken.set(file, latest.problems);
  }
  return { connectors, secrets, invalid, broken, duplicates };
}

/** The credential of a connector, undefined for an anonymous one, or what is wrong with its Secret. */
export function credentialOf(
  { secrets }: Pick<FolderContents, "secrets">,
  connector: Connector,
): Result<Credential | undefined> {
  const { namespace, secretName } = connector;
  if (secretName === undefined) return { ok: true, value: undefined };
  const ref = showRef({ namespace, name: secretName });
  const secret = secrets.get(ref);
  if (secret === undefined) {
    const reason = `there is no Secret ${ref}: add it, with username and password, or remove auth.secretRef`;
    return { ok: false, reason };
  }
  const credential = parseCredential(secret.document, loginAddressOf(connector));
  if (credential.ok) return credential;
  return { ok: false, reason: `Secret ${ref}: ${describeProblems(credential.problems)}` };
}

/** The client certificate of a connector, undefined for one without, or what is wrong with its Secret. */
export function clientCertificateOf(
  { secrets }: Pick<FolderContents, "secrets">,
  { namespace, clientCertSecretName }: Connector,
): Result<ClientCertificate | undefined> {
  if (clientCertSecretName === undefined) return { ok: true, value: undefined };
  const ref = showRef({ namespace, name: clientCertSecretName });
  const secret = secrets.get(ref);
  if (secret === undefined) {
    const reason = `there is no Secret ${ref}: add it, with tls.crt and tls.key, or remove clientCertSecret from spec.params`;
    return { ok: false, reason };
  }
  const certificate = parseClientCertificate(secret.document);
  if (certificate.ok) return certificate;
  return { ok: false, reason: `Secret ${ref}: ${describeProblems(certificate.problems)}` };
}

/** The certificates of the Secret that a connector names, or why there are none. */
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

/** The certificates of the Secrets that are trusted for every connector. */
export const sharedCertificates = ({
  secrets,
}: Pick<FolderContents, "secrets">): readonly string[] =>
  [...secrets.values()]
    .filter(({ trustedByAll }) => trustedByAll)
    .flatMap(({ document }) => parseCertificates(document));

/** Something in a folder that a person should know of, as a log line. */
export interface FolderProblem {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
  /** Two problems with the same key are the same, and are logged once. */
  readonly key: string;
}

/** Everything that is wrong with a folder's files, or ignored in them. No value of a Secret is shown. */
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
    const { deprecated } = connector;
    if (deprecated !== undefined) {
      const fields = { connector: showRef(connector), reason: describeProblems(deprecated) };
      yield createFolderProblem("warning", "the next release refuses this connector", fields);
    }
    const credential = credentialOf(contents, connector);
    if (!credential.ok) {
      const fields = { connector: showRef(connector), reason: credential.reason };
      yield createFolderProblem("warning", "this connector has no usable credential", fields);
    }
    const clientCertificate = clientCertificateOf(contents, connector);
    if (!clientCertificate.ok) {
      const fields = { connector: showRef(connector), reason: clientCertificate.reason };
      yield createFolderProblem(
        "warning",
        "this connector has no usable client certificate",
        fields,
      );
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
