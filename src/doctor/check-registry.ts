import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { Probe, ProbeFinding } from "../upstream/probe.ts";
import type { StatusCondition } from "./check-connector.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

/** The registry to check, and what is known of it. */
export interface RegistryCheck {
  readonly connector: Connector;
  /** The credential of the Secret; undefined for an anonymous connector, `unread` where the Secret can't be read. */
  readonly credential: UpstreamSecrets["credential"] | "unread";
  readonly caCertificates: readonly string[];
  readonly clientCertificate: UpstreamSecrets["clientCertificate"];
  /** The conditions of the Connector, which say whether its login was refused. */
  readonly conditions: readonly StatusCondition[];
  readonly probe: Probe;
  /** Whether this process is in the cluster, and reaches registries as the proxies do. */
  readonly isInCluster: boolean;
  readonly signal: AbortSignal;
}

/**
 * Checks whether the registry lives and accepts the connector's login. A login that it has refused is not tried again.
 */
export async function checkRegistry(check: RegistryCheck): Promise<readonly Finding[]> {
  const { connector, credential, caCertificates, clientCertificate } = check;
  const { probe, signal, isInCluster } = check;
  const refusal = refusalReason(check.conditions);
  const isTried = credential !== "unread" && refusal === undefined;
  const secrets = {
    credential: isTried ? credential : undefined,
    caCertificates,
    clientCertificate,
  };
  const { liveness, auth } = await probe(connector, secrets, signal);
  const registry = probeFinding("registry", liveness, isInCluster);
  if (!liveness.ok) return [registry, notChecked("login", "the registry must be reachable first")];
  if (refusal !== undefined) {
    const found = `the registry has refused the login (${refusal}) and is not asked again, since many registries lock an account after some attempts`;
    return [
      registry,
      notChecked("login", found, "correct the Secret; the controller then tries it at once"),
    ];
  }
  if (credential === "unread") {
    const found =
      connector.identity === undefined
        ? "the Secret can't be read"
        : "the login is obtained with an identity, by the controller and the proxies alone";
    const advice = "see AuthReady: the controller has tried the login";
    return [registry, notChecked("login", found, advice)];
  }
  return [registry, probeFinding("login", auth, true)];
}

/** The reason for which the registry has refused the login that the connector has now; undefined where it has not. */
const refusalReason = (conditions: readonly StatusCondition[]): string | undefined =>
  conditions.find(
    ({ type, status, reason }) =>
      type === "AuthReady" &&
      status === "False" &&
      (reason === "AuthenticationFailed" || reason === "AccessDenied"),
  )?.reason;

/**
 * The finding for one part of a probe. It is no failure where it is not decisive: the cluster may reach what a laptop
 * does not reach.
 */
export function probeFinding(subject: string, probed: ProbeFinding, isDecisive: boolean): Finding {
  if (probed.ok) return fine(subject, probed.message);
  const found = `${probed.reason}: ${probed.message}`;
  return isDecisive
    ? failure(subject, found, "docs/connector.md says what to do about each reason")
    : warning(
        subject,
        found,
        "this was checked from here; LivenessReady says what the cluster sees",
      );
}
