import type { Connector } from "../connector/connector.ts";
import {
  parseCertificates,
  parseClientCertificate,
  parseCredential,
} from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import { type IdentityAuth, identityName } from "../connector/identity-auth.ts";
import { describeProblems, show } from "../connector/problem.ts";
import type { RegistryAddress } from "../connector/registry-address.ts";
import type { StatusCondition } from "./check-connector.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

/** A Secret that a Connector refers to. */
export interface ReferredSecret {
  readonly namespace: string;
  readonly name: string;
  /** The object of the Secret. */
  readonly observed: Observed;
}

/**
 * Checks the Secret with the login of a Connector. The finding shows its type and its keys, never a value.
 * @param secret undefined for an anonymous connector
 * @param address of the registry
 */
export function checkLogin(secret: ReferredSecret | undefined, address: RegistryAddress): Finding {
  const subject = "Secret";
  if (secret === undefined) return fine(subject, "none: the registry is used anonymously");
  const ref = `Secret ${secret.namespace}/${secret.name}`;
  return findingFor(subject, secret.observed, {
    missing: () => failure(subject, `there is no ${ref}`, createLoginCommand(secret)),
    found(object) {
      const parsed = parseCredential(object, address);
      const found = `${ref} of type ${show(property(object, "type"))} with the keys ${keysOf(object)}`;
      if (parsed.ok) return fine(subject, found);
      return failure(
        subject,
        `${found}: ${describeProblems(parsed.problems)}`,
        createLoginCommand(secret),
      );
    },
  });
}

/**
 * Checks the identity with which a Connector logs in, by what the controller says of it: this process has no right to the
 * tokens of a ServiceAccount, and needs none.
 */
export function checkIdentity(
  connector: Connector,
  auth: IdentityAuth,
  conditions: readonly StatusCondition[],
): Finding {
  const subject = "identity";
  const whose = `${auth.method} of ${identityName(connector, auth)}`;
  const secret = conditions.find(({ type }) => type === "SecretReady");
  if (secret?.status === "True") return fine(subject, `${whose}: ${secret.message}`);
  if (secret === undefined || secret.status === "Unknown") {
    return notChecked(subject, `${whose}: the controller has not obtained a login yet`);
  }
  const advice = "docs/connector.md says what to do about each reason";
  return failure(subject, `${whose}: ${secret.reason}: ${secret.message}`, advice);
}

/** The command that creates the Secret anew, since the type of a Secret can't be changed. */
export const createLoginCommand = ({
  namespace,
  name,
}: Pick<ReferredSecret, "namespace" | "name">): string =>
  `kubectl delete secret ${name} -n ${namespace} --ignore-not-found && kubectl create secret generic ${name} -n ${namespace} ` +
  "--type=kubernetes.io/basic-auth --from-literal=username=… --from-file=password=…";

/** Checks the Secret with certificates of a Connector. Nothing is a failure, since the registry may not need them. */
export function checkCaSecret(secret: ReferredSecret | undefined): Finding {
  const subject = "CA Secret";
  if (secret === undefined) return fine(subject, "none: the system's certificates are trusted");
  const ref = `Secret ${secret.namespace}/${secret.name}`;
  const advice = `kubectl create secret generic ${secret.name} -n ${secret.namespace} --from-file=ca.crt`;
  return findingFor(subject, secret.observed, {
    missing: () => warning(subject, `there is no ${ref}`, advice),
    found(object) {
      const { length } = parseCertificates(object);
      if (length > 0) return fine(subject, `${ref} has ${length} certificates`);
      return warning(
        subject,
        `${ref} has no certificate in PEM, only the keys ${keysOf(object)}`,
        advice,
      );
    },
  });
}

/**
 * Checks the Secret with the client certificate of a Connector. The finding shows its type and its keys, never a value.
 * @returns nothing for a Connector without one
 */
export function checkClientCertificate(secret: ReferredSecret | undefined): readonly Finding[] {
  if (secret === undefined) return [];
  const subject = "client certificate";
  const ref = `Secret ${secret.namespace}/${secret.name}`;
  const advice = `kubectl create secret tls ${secret.name} -n ${secret.namespace} --cert=… --key=…`;
  return [
    findingFor(subject, secret.observed, {
      missing: () => failure(subject, `there is no ${ref}`, advice),
      found(object) {
        const parsed = parseClientCertificate(object);
        const found = `${ref} of type ${show(property(object, "type"))} with the keys ${keysOf(object)}`;
        if (parsed.ok) return fine(subject, found);
        return failure(subject, `${found}: ${describeProblems(parsed.problems)}`, advice);
      },
    }),
  ];
}

function keysOf(secret: unknown): string {
  const data = property(secret, "data");
  const keys = typeof data === "object" && data !== null ? Object.keys(data) : [];
  return keys.length === 0 ? "(none)" : keys.toSorted().join(", ");
}
