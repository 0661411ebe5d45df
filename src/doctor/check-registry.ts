import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { Probe, ProbeFinding } from "../upstream/probe.ts";
import type { ShownCondition } from "./check-connector.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

export interface RegistryQuestion {
  readonly connector: Connector;
  /** Undefined where the Secret with the login can't be read. */
  readonly credential: UpstreamSecrets["credential"] | "unread";
  readonly caCertificates: readonly string[];
  readonly conditions: readonly ShownCondition[];
  readonly probe: Probe;
  /** Whether the registry is asked from where the proxies are. */
  readonly isInCluster: boolean;
  readonly signal: AbortSignal;
}

/** Whether the registry is there, and accepts the connector's login. */
export async function checkRegistry(question: RegistryQuestion): Promise<readonly Finding[]> {
  const { connector, credential, caCertificates, probe, signal, isInCluster } = question;
  const refused = lastRefusal(question.conditions);
  const isTried = credential !== "unread" && refused === undefined;
  const secrets = { credential: isTried ? credential : undefined, caCertificates };
  const { liveness, auth } = await probe(connector, secrets, signal);
  const registry = judgeProbed("registry", liveness, isInCluster);
  if (!liveness.ok) return [registry, notChecked("login", "the registry must be reachable first")];
  if (refused !== undefined) {
    const found = `the registry has refused the login (${refused}) and is not asked again, since many registries lock an account after some attempts`;
    return [
      registry,
      notChecked("login", found, "correct the Secret; the controller then tries it at once"),
    ];
  }
  if (credential === "unread") {
    return [
      registry,
      notChecked(
        "login",
        "the Secret can't be read",
        "see AuthReady: the controller has tried the login",
      ),
    ];
  }
  return [registry, judgeProbed("login", auth, true)];
}

/** The reason for which the registry has refused the login that the connector has now. */
const lastRefusal = (conditions: readonly ShownCondition[]): string | undefined =>
  conditions.find(
    ({ type, status, reason }) =>
      type === "AuthReady" &&
      status === "False" &&
      (reason === "AuthenticationFailed" || reason === "AccessDenied"),
  )?.reason;

/** What a laptop does not reach, the cluster may reach. */
function judgeProbed(subject: string, probed: ProbeFinding, isDecisive: boolean): Finding {
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
