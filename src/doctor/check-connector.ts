import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { describeProblems, type Problem } from "../connector/problem.ts";
import { errorCode } from "../error-code.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

/**
 * Checks whether a Connector exists and is valid.
 * @param parsed the connector, or the problems of its document
 */
export function checkConnector(
  object: Observed,
  parsed: { readonly connector?: Connector; readonly problems?: readonly Problem[] },
  ref: ConnectorRef,
): Finding {
  const subject = "Connector";
  return findingFor(subject, object, {
    missing: () =>
      failure(
        subject,
        `there is no Connector ${showRef(ref)}`,
        `kubectl get connectors -n ${ref.namespace}`,
      ),
    found() {
      const { connector, problems = [] } = parsed;
      const edit = `kubectl edit connector ${ref.name} -n ${ref.namespace}`;
      if (connector?.deprecated !== undefined) {
        const found = `the next release refuses it: ${describeProblems(connector.deprecated)}`;
        return warning(subject, found, edit);
      }
      if (connector !== undefined)
        return fine(subject, connector.address.origin + connector.address.basePath);
      return failure(subject, describeProblems(problems), edit);
    },
  });
}

/** A condition in a Connector's status. */
export interface StatusCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}

/** Reads the conditions in the status of a Connector. */
export function statusConditions(object: unknown): readonly StatusCondition[] {
  const found = property(property(object, "status"), "conditions");
  if (!Array.isArray(found)) return [];
  return found.map((condition) => {
    const text = (key: string): string => String(property(condition, key) ?? "");
    return {
      type: text("type"),
      status: text("status"),
      reason: text("reason"),
      message: text("message"),
    };
  });
}

/**
 * Checks what the controller says of a Connector.
 * @returns one finding where all conditions are True, else one for each that is not
 */
export function checkConditions(object: unknown): readonly Finding[] {
  const subject = "conditions";
  const generation = property(property(object, "metadata"), "generation");
  const observed = property(property(object, "status"), "observedGeneration");
  const conditions = statusConditions(object);
  if (conditions.length === 0) {
    return [
      failure(
        subject,
        "there are none: no controller has examined the Connector",
        "see the controller above",
      ),
    ];
  }
  const outdated =
    generation === observed
      ? []
      : [
          warning(
            subject,
            "they describe the Connector before its last change",
            "wait some seconds, then see the controller above",
          ),
        ];
  const failed = conditions
    .filter(({ type, status }) => type !== "Ready" && status !== "True")
    .map(conditionFinding);
  if (outdated.length + failed.length > 0) return [...outdated, ...failed];
  const ready = conditions.find(({ type }) => type === "Ready");
  return ready?.status === "True"
    ? [fine(subject, "all are True")]
    : [failure(subject, `Ready is ${ready?.status ?? "missing"}`, "see the controller above")];
}

const reasonAdvice = "docs/connector.md says what to do about each reason";

/** A condition that is Unknown waits for another one and is not at fault; CACertReady is for information. */
function conditionFinding({ type, status, reason, message }: StatusCondition): Finding {
  const found = `${status}, ${reason}: ${message}`;
  const isFault = status === "False" && type !== "CACertReady";
  return isFault ? failure(type, found, reasonAdvice) : warning(type, found, reasonAdvice);
}

/** The name of a connector's Service, and where it has to lead. */
export interface ServiceExpectation {
  readonly namespace: string;
  readonly name: string;
  /** The host of the proxy's own Service. */
  readonly target: string;
}

/** Checks whether a connector's Service leads to the proxy. */
export function checkConnectorService(service: Observed, expected: ServiceExpectation): Finding {
  const subject = "Service";
  const ref = `${expected.namespace}/${expected.name}`;
  return findingFor(subject, service, {
    missing: () =>
      failure(
        subject,
        `there is no Service ${ref}`,
        "the controller creates it: see ProxyServiceReady above",
      ),
    found(object) {
      const spec = property(object, "spec");
      const type = property(spec, "type");
      const target = property(spec, "externalName");
      if (type === "ExternalName" && target === expected.target)
        return fine(subject, `${ref} leads to ${expected.target}`);
      const leads = type === "ExternalName" ? `leads to ${String(target)}` : `is a ${String(type)}`;
      const advice = `remove it, and the controller creates its own: kubectl delete service ${expected.name} -n ${expected.namespace}`;
      return failure(
        subject,
        `${ref} ${leads}, wanted an ExternalName onto ${expected.target}`,
        advice,
      );
    },
  });
}

/** Resolves a host to its IP addresses. @throws Error with the code of DNS */
export type LookupAddresses = (host: string) => Promise<readonly string[]>;

/**
 * Checks whether the cluster's DNS knows the host of a connector.
 * @param proxyService the proxy's own Service
 * @param resolve undefined outside of the cluster, where nobody knows its names
 */
export async function checkDns(
  host: string,
  proxyService: Observed,
  resolve: LookupAddresses | undefined,
): Promise<Finding> {
  const subject = "DNS";
  if (resolve === undefined) {
    return notChecked(
      subject,
      `${host} is known only inside the cluster`,
      "run the doctor in a Pod",
    );
  }
  try {
    const addresses = await resolve(host);
    const found = `${host} is at ${addresses.join(", ")}`;
    const expected = clusterAddresses(proxyService);
    const isElsewhere =
      expected.length > 0 && !addresses.some((address) => expected.includes(address));
    if (!isElsewhere) return fine(subject, found);
    return warning(
      subject,
      `${found}, but the proxy's Service is at ${expected.join(", ")}`,
      "wait about 30 s, since DNS servers cache",
    );
  } catch (error) {
    const code = errorCode(error) ?? String(error);
    return failure(
      subject,
      `${host} can't be resolved (${code})`,
      "check the Service above, CLUSTER_DOMAIN in daemonset/settings.env, and the cluster's DNS",
    );
  }
}

function clusterAddresses(service: Observed): readonly unknown[] {
  const spec = service.state === "found" ? property(service.value, "spec") : undefined;
  const addresses = property(spec, "clusterIPs");
  return Array.isArray(addresses) ? addresses.filter((address) => address !== "None") : [];
}
