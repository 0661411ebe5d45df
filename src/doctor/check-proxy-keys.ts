import { X509Certificate } from "node:crypto";
import { parseCertificates } from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import { describeProblems } from "../connector/problem.ts";
import {
  caConfigMapKey,
  caConfigMapName,
  keysSecretName,
  parseProxyKeys,
} from "../connector/proxy-keys.ts";
import { type Finding, failure, fine, warning } from "./finding.ts";
import { judge, type Seen } from "./seen.ts";

const month = 30 * 24 * 60 * 60 * 1000;

/** Whether volumes get certificates to trust. @param now milliseconds since the epoch */
export function checkCertificates(configMap: Seen, namespace: string, now: number): Finding {
  const subject = "proxy's certificates";
  const ref = `ConfigMap ${namespace}/${caConfigMapName}`;
  const advice = "the controller makes it: look at its log";
  return judge(subject, configMap, {
    missing: () => failure(subject, `there is no ${ref}: no volume can be published`, advice),
    found(object) {
      const certificates = certificatesIn(object).map((text) => new X509Certificate(text));
      const [first] = certificates;
      if (first === undefined) {
        return failure(
          subject,
          `${ref} has no certificate under ${caConfigMapKey}`,
          `kubectl delete it: ${advice}`,
        );
      }
      const end = Date.parse(first.validTo);
      const found = `${certificates.length} in ${ref}, until ${new Date(end).toISOString().slice(0, 10)}`;
      if (end < now) return failure(subject, found, "rotate it: docs/ca-rotation.md");
      return end < now + month
        ? warning(subject, found, "rotate it: docs/ca-rotation.md")
        : fine(subject, found);
    },
  });
}

/** Whether the proxies have keys, and such as the volumes trust. */
export function checkKeys(secret: Seen, configMap: Seen, namespace: string): Finding {
  const subject = "proxy's keys";
  const ref = `Secret ${namespace}/${keysSecretName}`;
  return judge(subject, secret, {
    missing: () =>
      failure(
        subject,
        `there is no ${ref}: no proxy is ready`,
        "the controller makes it: look at its log",
      ),
    found(object) {
      const keys = parseProxyKeys(object);
      if (!keys.ok) {
        const advice =
          "put it back from a copy, or delete it to have new keys made: docs/ca-rotation.md";
        return failure(subject, `${ref}: ${describeProblems(keys.problems)}`, advice);
      }
      const { certificate } = keys.value.authority;
      if (
        configMap.state === "found" &&
        !certificatesIn(configMap.value).includes(certificate.trim())
      ) {
        const found = `the authority in ${ref} is none of those in the ConfigMap: volumes don't trust the proxy`;
        return failure(subject, found, "the controller puts that right: look at its log");
      }
      return fine(
        subject,
        `${ref} has all of them${keys.value.next ? ", and a rotation is under way" : ""}`,
      );
    },
  });
}

const certificatesIn = (configMap: unknown): readonly string[] =>
  parseCertificates({
    stringData: { [caConfigMapKey]: property(property(configMap, "data"), caConfigMapKey) },
  });
