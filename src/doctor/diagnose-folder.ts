import { readdir } from "node:fs/promises";
import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { identityName } from "../connector/identity-auth.ts";
import { describeProblems, show } from "../connector/problem.ts";
import { explainUnreadable } from "../standalone/connector-folder.ts";
import {
  clientCertificateOf,
  createFolderContents,
  credentialOf,
  type FolderContents,
  ownCertificatesOf,
  sharedCertificates,
} from "../standalone/folder-contents.ts";
import { type KeptFile, keepFile, readFolderFiles } from "../standalone/folder-file.ts";
import type { Probe } from "../upstream/probe.ts";
import { probeFinding } from "./check-registry.ts";
import { type Finding, failure, fine, notChecked, type Section, warning } from "./report.ts";

/** The folder to check, and how. */
export interface DiagnoseFolderOptions {
  readonly folder: string;
  /** Asks registries; undefined where none shall be asked. */
  readonly probe: Probe | undefined;
  readonly signal: AbortSignal;
}

/**
 * Checks a folder of connectors as the standalone process would read it at its start: every file, and every connector
 * with the Secrets that it names.
 */
export async function diagnoseFolder({
  folder,
  probe,
  signal,
}: DiagnoseFolderOptions): Promise<readonly Section[]> {
  const title = `Folder ${folder}`;
  const read = await readFolder(folder);
  if (typeof read === "string") {
    return [{ title, findings: [failure("folder", read, "see `oci-connector help check`")] }];
  }
  const { files, others } = read;
  const contents = createFolderContents(files);
  const connectors = [...contents.connectors.values()];
  const logins = await checkLogins(contents, probe, signal);
  return [
    {
      title,
      findings: [
        ...[...files].flatMap(([name, file]) => checkFile(name, file, contents)),
        ...others.map(unreadFile),
        ...checkCount(contents),
      ],
    },
    ...connectors.map((connector) => ({
      title: `Connector ${showRef(connector)}`,
      findings: [...checkSecrets(contents, connector), ...(logins.get(connector) ?? [])],
    })),
  ];
}

interface ReadFolder {
  readonly files: ReadonlyMap<string, KeptFile>;
  /** Names of what is there, too, and is not read. */
  readonly others: readonly string[];
}

/** @returns why it can't be read, with what to do */
async function readFolder(folder: string): Promise<ReadFolder | string> {
  try {
    const found = await readFolderFiles(folder);
    const files = new Map([...found].map(([name, file]) => [name, keepFile(undefined, file)]));
    const names = (await readdir(folder)).sort();
    return { files, others: names.filter((name) => !files.has(name) && !name.startsWith(".")) };
  } catch (error) {
    return explainUnreadable(folder, error);
  }
}

function checkFile(name: string, file: KeptFile, contents: FolderContents): readonly Finding[] {
  const { problems, ignored, connectors, secrets } = file.latest;
  const subject = show(name).slice(1, -1);
  const findings = [
    ...problems.map((problem) =>
      failure(subject, problem, "correct it: a start goes without this document"),
    ),
    ...contents.duplicates
      .filter((duplicate) => duplicate.file === name)
      .map(({ object, firstFile }) =>
        warning(
          subject,
          `${object} is in ${firstFile} already, and that one is used`,
          "remove one",
        ),
      ),
  ];
  if (file.openToAll && secrets.length > 0) {
    findings.push(
      warning(subject, "every user of this machine can read its Secrets", `chmod o-rwx ${name}`),
    );
  }
  const count = `Connectors: ${connectors.length}, Secrets: ${secrets.length}`;
  const rest =
    ignored.length === 0 ? "" : `; ignored, as neither of the two: ${ignored.join(", ")}`;
  if (findings.length === 0 || ignored.length > 0) findings.push(fine(subject, count + rest));
  return findings;
}

const unreadFile = (name: string): Finding =>
  notChecked(
    show(name).slice(1, -1),
    "it is not read: only files called *.yaml or *.yml are, and links to one",
  );

function checkCount({ connectors, broken }: FolderContents): readonly Finding[] {
  if (connectors.size > 0) return [];
  if (broken.size === 0) {
    return [warning("connectors", "there is none", "put a file with a Connector there")];
  }
  const found = "none can be used, and so `oci-connector standalone` refuses to start";
  return [failure("connectors", found, "correct the files")];
}

/** Checks a connector's own document, and the Secrets that it names. No value of one is shown. */
function checkSecrets(contents: FolderContents, connector: Connector): readonly Finding[] {
  const { namespace, secretName, caCertSecretName, clientCertSecretName, deprecated } = connector;
  const secret = (name: string): string => `Secret ${showRef({ namespace, name })}`;
  const findings: Finding[] = [];
  if (deprecated !== undefined) {
    const found = `the next release refuses it: ${describeProblems(deprecated)}`;
    findings.push(warning("Connector", found, "change it before the next release"));
  }
  const credential = credentialOf(contents, connector);
  if (connector.identity !== undefined) {
    findings.push(fine("identity", identityName(connector, connector.identity)));
  } else if (!credential.ok) findings.push(failure("Secret", credential.reason, addToFolder));
  else if (secretName !== undefined) findings.push(fine("Secret", secret(secretName)));
  else findings.push(fine("Secret", "none: the registry is used anonymously"));
  const certificates = ownCertificatesOf(contents, connector);
  if (!certificates.ok) {
    findings.push(warning("CA Secret", certificates.reason, addToFolder));
  } else if (caCertSecretName !== undefined) {
    const found = `${secret(caCertSecretName)} has ${certificates.value.length} certificates`;
    findings.push(fine("CA Secret", found));
  }
  const clientCertificate = clientCertificateOf(contents, connector);
  if (!clientCertificate.ok) {
    findings.push(failure("client certificate", clientCertificate.reason, addToFolder));
  } else if (clientCertSecretName !== undefined) {
    findings.push(fine("client certificate", secret(clientCertSecretName)));
  }
  return findings;
}

const addToFolder = "README.md and docs/connector.md have examples of the Secrets";

/** So many registries are asked at a time. */
const maxRegistries = 8;

/**
 * Asks the registries whether they take the logins. A login that a registry has refused is not tried again for its other
 * connectors, since many registries lock an account after some attempts.
 */
async function checkLogins(
  contents: FolderContents,
  probe: Probe | undefined,
  signal: AbortSignal,
): Promise<ReadonlyMap<Connector, readonly Finding[]>> {
  const findings = new Map<Connector, readonly Finding[]>();
  if (probe === undefined) return findings;
  const byRegistry = Map.groupBy(contents.connectors.values(), ({ address }) => address.origin);
  const waiting = [...byRegistry.values()];
  const work = async (): Promise<void> => {
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      const refused = new Map<string, ConnectorRef>();
      for (const connector of group) {
        findings.set(connector, await checkLogin(contents, connector, { probe, signal, refused }));
      }
    }
  };
  await Promise.all(Array.from({ length: maxRegistries }, work));
  return findings;
}

interface LoginCheck {
  readonly probe: Probe;
  readonly signal: AbortSignal;
  /** Logins that this registry has refused, and the connector that had each of them. */
  readonly refused: Map<string, ConnectorRef>;
}

async function checkLogin(
  contents: FolderContents,
  connector: Connector,
  { probe, signal, refused }: LoginCheck,
): Promise<readonly Finding[]> {
  const credential = credentialOf(contents, connector);
  const clientCertificate = clientCertificateOf(contents, connector);
  if (!credential.ok || !clientCertificate.ok) {
    return [notChecked("registry", "a Secret of this connector has to be corrected first")];
  }
  const login = JSON.stringify([credential.value?.username, credential.value?.password]);
  const refusedTo = refused.get(login);
  const own = ownCertificatesOf(contents, connector);
  const secrets = {
    credential: refusedTo === undefined ? credential.value : undefined,
    caCertificates: [...(own.ok ? own.value : []), ...sharedCertificates(contents)],
    clientCertificate: clientCertificate.value,
  };
  const { liveness, auth } = await probe(connector, secrets, signal);
  const registry = probeFinding("registry", liveness, true);
  if (!liveness.ok) return [registry, notChecked("login", "the registry must be reachable first")];
  if (connector.identity !== undefined) {
    const found =
      "it is obtained with an identity when it is used; the log of standalone mode says so";
    return [registry, notChecked("login", found)];
  }
  if (refusedTo !== undefined) {
    const found = `the registry has refused the same login to Connector ${showRef(refusedTo)}, and is not asked again, since many registries lock an account after some attempts`;
    return [registry, notChecked("login", found, "correct that one first")];
  }
  const isRefused =
    !auth.ok && (auth.reason === "AuthenticationFailed" || auth.reason === "AccessDenied");
  if (isRefused && credential.value !== undefined) refused.set(login, connector);
  return [registry, probeFinding("login", auth, true)];
}
