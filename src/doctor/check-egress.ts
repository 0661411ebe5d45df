import type { Connector } from "../connector/connector.ts";
import { type Credential, parseLogin } from "../connector/credential.ts";
import type { EgressRules } from "../connector/egress-rules.ts";
import { isWithoutProxy } from "../connector/no-proxy.ts";
import { type Checked, describeProblems } from "../connector/problem.ts";
import { createLoginCommand } from "./check-secrets.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine } from "./report.ts";

/** The Secret with the login at a company's proxy, in the namespace of the installation. */
export const egressLoginName = "connectors-egress-login";

/**
 * Checks the settings of a company's proxy, and its login.
 * @param secret the Secret with the login
 * @returns nothing where there is no such proxy
 */
export function checkEgress(
  egress: Checked<EgressRules | undefined>,
  secret: Observed,
  namespace: string,
): readonly Finding[] {
  const subject = "egress proxy";
  if (!egress.ok) {
    const advice = "correct it in the settings: the proxies and the controller don't start with it";
    return [failure(subject, describeProblems(egress.problems), advice)];
  }
  if (egress.value === undefined) return [];
  const { origin } = egress.value.proxy;
  const name = `Secret ${namespace}/${egressLoginName}`;
  return [
    findingFor(subject, secret, {
      missing: () => fine(subject, `${origin}, without a login: there is no ${name}`),
      found(object) {
        const login = parseLogin(object);
        if (login.ok) return fine(subject, `${origin}, with the login in ${name}`);
        const found = `${origin}, and its login can't be used: ${name}: ${describeProblems(login.problems)}`;
        return failure(subject, found, createLoginCommand({ namespace, name: egressLoginName }));
      },
    }),
  ];
}

/** The login at a company's proxy: undefined where there is none, or none that can be used; `unread` where the Secret can't be read. */
export function egressCredential(secret: Observed): Credential | "unread" | undefined {
  if (secret.state === "unknown") return "unread";
  // The kubelet mounts a Secret of any type.
  const parsed = secret.state === "found" ? parseLogin(secret.value) : undefined;
  return parsed?.ok ? parsed.value : undefined;
}

/** Says how a registry is reached. @returns nothing where there is no company's proxy */
export function checkWay(
  { address }: Connector,
  egress: Checked<EgressRules | undefined>,
): readonly Finding[] {
  if (!egress.ok || egress.value === undefined) return [];
  const { noProxy, proxy } = egress.value;
  const { hostname, port, origin } = address;
  const way = isWithoutProxy(noProxy, hostname, port)
    ? `${origin} is reached directly, since EGRESS_NO_PROXY or the cluster's own hosts have it`
    : `${origin} is reached by the egress proxy ${proxy.origin}`;
  return [fine("way", way)];
}
