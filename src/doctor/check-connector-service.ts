import { property } from "../connector/document.ts";
import { errorCode } from "../error-code.ts";
import { type Finding, failure, fine, notChecked, warning } from "./finding.ts";
import { judge, type Seen } from "./seen.ts";

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
