import { parseCertificates, parseCredential } from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import { describeProblems, show } from "../connector/problem.ts";
import { judge, type Seen } from "./cluster-reader.ts";
import { type Finding, failure, fine, warning } from "./report.ts";

/** A Secret that a Connector refers to. */
export interface ReferredSecret {
  readonly namespace: string;
  readonly name: string;
  readonly seen: Seen;
}

/** The login of a Connector: its type and its keys, never a value. @param secret undefined for an anonymous one */
export function checkLogin(secret: ReferredSecret | undefined): Finding {
  const subject = "Secret";
  if (secret === undefined) return fine(subject, "none: the registry is used anonymously");
  const ref = `Secret ${secret.namespace}/${secret.name}`;
  return judge(subject, secret.seen, {
    missing: () => failure(subject, `there is no ${ref}`, createLogin(secret)),
    found(object) {
      const parsed = parseCredential(object);
      const found = `${ref} of type ${show(property(object, "type"))} with the keys ${keysOf(object)}`;
      if (parsed.ok) return fine(subject, found);
      return failure(
        subject,
        `${found}: ${describeProblems(parsed.problems)}`,
        createLogin(secret),
      );
    },
  });
}

/** The type of a Secret can't be changed. */
const createLogin = ({ namespace, name }: ReferredSecret): string =>
  `kubectl delete secret ${name} -n ${namespace} --ignore-not-found && kubectl create secret generic ${name} -n ${namespace} ` +
  "--type=kubernetes.io/basic-auth --from-literal=username=… --from-file=password=…";

/** The certificates that a Connector names. A registry may do without them. */
export function checkCaSecret(secret: ReferredSecret | undefined): Finding {
  const subject = "CA Secret";
  if (secret === undefined) return fine(subject, "none: the system's certificates are trusted");
  const ref = `Secret ${secret.namespace}/${secret.name}`;
  const advice = `kubectl create secret generic ${secret.name} -n ${secret.namespace} --from-file=ca.crt`;
  return judge(subject, secret.seen, {
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

function keysOf(secret: unknown): string {
  const data = property(secret, "data");
  const keys = typeof data === "object" && data !== null ? Object.keys(data) : [];
  return keys.length === 0 ? "(none)" : keys.toSorted().join(", ");
}
