import { X509Certificate } from "node:crypto";
import { parseCertificates } from "../connector/credential.ts";
import { listOf, property } from "../connector/document.ts";
import { describeProblems } from "../connector/problem.ts";
import {
  caConfigMapKey,
  caConfigMapName,
  keysSecretName,
  parseProxyKeys,
} from "../connector/proxy-keys.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, installAdvice, notChecked, warning } from "./report.ts";

const monthMs = 30 * 24 * 60 * 60 * 1000;

/** Checks the ConfigMap with the certificates that volumes trust. @param now in milliseconds since 1970 */
export function checkCertificates(configMap: Observed, namespace: string, now: number): Finding {
  const subject = "proxy's certificates";
  const ref = `ConfigMap ${namespace}/${caConfigMapName}`;
  const advice = "the controller creates it: see the controller's log";
  return findingFor(subject, configMap, {
    missing: () => failure(subject, `there is no ${ref}: no volume can be published`, advice),
    found(object) {
      const certificates = certificatesIn(object).map((text) => new X509Certificate(text));
      const [first] = certificates;
      if (first === undefined) {
        return failure(
          subject,
          `${ref} has no certificate under ${caConfigMapKey}`,
          `delete it with kubectl: ${advice}`,
        );
      }
      const end = Date.parse(first.validTo);
      const found = `${certificates.length} in ${ref}, valid until ${new Date(end).toISOString().slice(0, 10)}`;
      if (end < now) return failure(subject, found, "rotate it: docs/ca-rotation.md");
      return end < now + monthMs
        ? warning(subject, found, "rotate it: docs/ca-rotation.md")
        : fine(subject, found);
    },
  });
}

/** Checks whether the proxies have keys, and whether volumes trust them. */
export function checkKeys(secret: Observed, configMap: Observed, namespace: string): Finding {
  const subject = "proxy's keys";
  const ref = `Secret ${namespace}/${keysSecretName}`;
  return findingFor(subject, secret, {
    missing: () =>
      failure(
        subject,
        `there is no ${ref}: no proxy is ready`,
        "the controller creates it: see the controller's log",
      ),
    found(object) {
      const keys = parseProxyKeys(object);
      if (!keys.ok) {
        const advice =
          "restore it from a backup, or delete it so that new keys are created: docs/ca-rotation.md";
        return failure(subject, `${ref}: ${describeProblems(keys.problems)}`, advice);
      }
      const { certificate } = keys.value.authority;
      if (
        configMap.state === "found" &&
        !certificatesIn(configMap.value).includes(certificate.trim())
      ) {
        const found = `the authority in ${ref} is not among those in the ConfigMap: volumes don't trust the proxy`;
        return failure(subject, found, "the controller corrects this: see the controller's log");
      }
      return fine(
        subject,
        `${ref} has all keys${keys.value.next ? ", and a rotation is under way" : ""}`,
      );
    },
  });
}

const certificatesIn = (configMap: unknown): readonly string[] =>
  parseCertificates({
    stringData: { [caConfigMapKey]: property(property(configMap, "data"), caConfigMapKey) },
  });

const subject = "proxy's Service";

/** Checks whether the proxy's Service leads to a proxy. @param slices the EndpointSlices of the Service */
export function checkProxyService(
  service: Observed,
  slices: Observed<readonly unknown[]>,
  ref: { readonly namespace: string; readonly name: string },
): Finding {
  const named = `${ref.namespace}/${ref.name}`;
  return findingFor(subject, service, {
    missing: () => failure(subject, `there is no Service ${named}`, installAdvice),
    found(object) {
      const ports = portsOf(object);
      const missingPorts = [80, 443].filter((port) => !ports.includes(port));
      if (missingPorts.length > 0) {
        return failure(
          subject,
          `Service ${named} lacks the port ${missingPorts.join(" and ")}`,
          installAdvice,
        );
      }
      if (slices.state !== "found") {
        const why = slices.state === "unknown" ? `: ${slices.why}` : "";
        return notChecked(subject, `Service ${named} exists; its endpoints are not known${why}`);
      }
      const ready = slices.value.flatMap(readyEndpoints).length;
      if (ready > 0) return fine(subject, `Service ${named} has ${ready} proxies`);
      const advice = `kubectl logs -n ${ref.namespace} -l app.kubernetes.io/component=node -c proxy`;
      return failure(subject, `no proxy behind Service ${named} is ready`, advice);
    },
  });
}

function portsOf(service: unknown): readonly unknown[] {
  return listOf(property(property(service, "spec"), "ports")).map((port) => property(port, "port"));
}

function readyEndpoints(slice: unknown): readonly unknown[] {
  return listOf(property(slice, "endpoints")).filter(
    (one) => property(property(one, "conditions"), "ready") !== false,
  );
}
