import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { describeProblems, type Problem } from "../connector/problem.ts";
import { errorCode } from "../error-code.ts";
import { judge, type Seen } from "./cluster-reader.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

/** Whether there is such a Connector, and whether it can be read. @param read what came of reading it */
export function checkConnector(
  object: Seen,
  read: { readonly connector?: Connector; readonly problems?: readonly Problem[] },
  ref: ConnectorRef,
): Finding {
  const subject = "Connector";
  return judge(subject, object, {
    missing: () =>
      failure(
        subject,
        `there is no Connector ${showRef(ref)}`,
        `kubectl get connectors -n ${ref.namespace}`,
      ),
    found() {
      const { connector, problems = [] } = read;
      if (connector !== undefined)
        return fine(subject, connector.address.origin + connector.address.basePath);
      return failure(
        subject,
        describeProblems(problems),
        `kubectl edit connector ${ref.name} -n ${ref.namespace}`,
      );
    },
  });
}

/** A condition in a Connector's status. */
export interface ShownCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}

export function conditionsOf(object: unknown): readonly ShownCondition[] {
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

/** What the controller says: one finding where all is well, else one for each condition that is not True. */
export function checkConditions(object: unknown): readonly Finding[] {
  const subject = "conditions";
  const [generation, observed] = [
    property(property(object, "metadata"), "generation"),
    property(property(object, "status"), "observedGeneration"),
  ];
  const conditions = conditionsOf(object);
  if (conditions.length === 0) {
    return [
      failure(
        subject,
        "there are none: no controller has examined the Connector",
        "see the controller above",
      ),
    ];
  }
  const late =
    generation === observed
      ? []
      : [
          warning(
            subject,
            "they describe the Connector before its last change",
            "wait some seconds, then see the controller above",
          ),
        ];
  const wrong = conditions
    .filter(({ type, status }) => type !== "Ready" && status !== "True")
    .map(judgeCondition);
  if (late.length + wrong.length > 0) return [...late, ...wrong];
  const ready = conditions.find(({ type }) => type === "Ready");
  return ready?.status === "True"
    ? [fine(subject, "all are True")]
    : [failure(subject, `Ready is ${ready?.status ?? "missing"}`, "see the controller above")];
}

const where = "docs/connector.md says what to do about each reason";

/** Certificates are for information, and what waits for something else is not at fault. */
function judgeCondition({ type, status, reason, message }: ShownCondition): Finding {
  const found = `${status}, ${reason}: ${message}`;
  const isFault = status === "False" && type !== "CACertReady";
  return isFault ? failure(type, found, where) : warning(type, found, where);
}

/** The name of a connector's Service and what it has to lead to. */
export interface ServiceExpectation {
  readonly namespace: string;
  readonly name: string;
  /** The host of the proxy's own Service. */
  readonly target: string;
}

/** Whether a connector's own name leads to the proxy. */
export function checkConnectorService(service: Seen, expected: ServiceExpectation): Finding {
  const subject = "Service";
  const ref = `${expected.namespace}/${expected.name}`;
  return judge(subject, service, {
    missing: () =>
      failure(
        subject,
        `there is no Service ${ref}`,
        "the controller creates it: see ProxyServiceReady above",
      ),
    found(object) {
      const spec = property(object, "spec");
      const [type, target] = [property(spec, "type"), property(spec, "externalName")];
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

/** The addresses of a host. @throws Error with the code of DNS */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** @param resolve undefined outside of the cluster, whose names nobody else knows */
export async function checkDns(
  host: string,
  proxyService: Seen,
  resolve: Resolve | undefined,
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

function clusterAddresses(service: Seen): readonly unknown[] {
  const spec = service.state === "found" ? property(service.value, "spec") : undefined;
  const addresses = property(spec, "clusterIPs");
  return Array.isArray(addresses) ? addresses.filter((address) => address !== "None") : [];
}
