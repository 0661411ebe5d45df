import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { type Credential, parseCertificates, parseCredential } from "../connector/credential.ts";
import { describeProblems } from "../connector/problem.ts";
import type { Answer } from "../connector/surroundings.ts";
import type { FolderContents } from "./folder-contents.ts";

/** The credential of a connector, or what its Secret lacks; undefined for an anonymous connector. */
export function credentialOf(
  { secrets }: Pick<FolderContents, "secrets">,
  { namespace, secretName }: Connector,
): Answer<Credential | undefined> {
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
): Answer<readonly string[]> {
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
