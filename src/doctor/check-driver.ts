import { listOf, property } from "../connector/document.ts";
import { show } from "../connector/problem.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, installAdvice, warning } from "./report.ts";

const subject = "CSIDriver";

/** What the CSIDriver has to fit. */
export interface DriverExpectations {
  /** The audience of tokens that the proxy accepts; undefined where the settings are not known. */
  readonly audience: string | undefined;
  /** The API server's minor version; undefined where it is not known. */
  readonly minor: number | undefined;
}

/** With a shorter lifetime, a token may expire in the middle of a build whose tool reads it once. */
const minLifetimeSeconds = 1800;
/** The lifetime that an API server takes where a token request has none. */
const defaultLifetimeSeconds = 3600;
/** From this version of Kubernetes on, tokens need not stand among a volume's attributes (KEP-5538). */
const minorWithTokensInSecrets = 35;

/** Checks whether the CSIDriver makes the kubelet do what volumes need. */
export function checkDriver(driver: Observed, expected: DriverExpectations): Finding {
  return findingFor(subject, driver, {
    missing: () =>
      failure(subject, "there is no CSIDriver: no Pod can have a volume", installAdvice),
    found: (object) => driverFinding(property(object, "spec"), expected),
  });
}

function driverFinding(spec: unknown, expected: DriverExpectations): Finding {
  const problems = [...fieldProblems(spec), ...tokenProblems(spec, expected)];
  if (problems.length > 0) return failure(subject, problems.join("; "), installAdvice);
  const lifetime = lifetimeSeconds(spec);
  if (lifetime < minLifetimeSeconds) {
    const found = `tokens live ${lifetime} s, but a build may take longer, and some tools read the token only once`;
    return warning(
      subject,
      found,
      `set TOKEN_LIFETIME in daemonset/settings.env to ${minLifetimeSeconds} or more`,
    );
  }
  const isOld = expected.minor !== undefined && expected.minor < minorWithTokensInSecrets;
  if (property(spec, "serviceAccountTokenInSecrets") !== true && !isOld) {
    const found =
      "serviceAccountTokenInSecrets is not true: tokens are passed among the volume's attributes, which are sometimes logged";
    return warning(
      subject,
      found,
      `from Kubernetes 1.${minorWithTokensInSecrets} on, remove the component older-kubernetes`,
    );
  }
  return fine(
    subject,
    `tokens for ${show(audienceOf(spec))} live ${lifetime} s, and are renewed in volumes`,
  );
}

function fieldProblems(spec: unknown): readonly string[] {
  const field = (name: string): unknown => property(spec, name);
  const modes = field("volumeLifecycleModes");
  return [
    ...(field("requiresRepublish") === true
      ? []
      : ["requiresRepublish is not true: tokens in volumes expire and are never renewed"]),
    ...(field("podInfoOnMount") === true
      ? []
      : ["podInfoOnMount is not true: the driver can't tell whose volume it is, and refuses it"]),
    ...(Array.isArray(modes) && modes.includes("Ephemeral")
      ? []
      : ["volumeLifecycleModes lacks Ephemeral: the kubelet refuses inline volumes"]),
  ];
}

function tokenProblems(spec: unknown, { audience }: DriverExpectations): readonly string[] {
  const audiences = requestsOf(spec).map((request) => property(request, "audience"));
  if (audiences.length === 0) return ["tokenRequests is empty: volumes get no token"];
  if (audience === undefined || audiences.includes(audience)) return [];
  return [
    `tokenRequests are for ${audiences.map(show).join(", ")}, but the proxy accepts only tokens for ${show(audience)}`,
  ];
}

const requestsOf = (spec: unknown): readonly unknown[] => listOf(property(spec, "tokenRequests"));

const audienceOf = (spec: unknown): unknown => property(requestsOf(spec)[0], "audience");

const lifetimeSeconds = (spec: unknown): number =>
  Number(property(requestsOf(spec)[0], "expirationSeconds") ?? defaultLifetimeSeconds);
