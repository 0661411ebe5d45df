import { listOf, property } from "../connector/document.ts";
import { show } from "../connector/problem.ts";
import { judge, type Seen } from "./cluster-reader.ts";
import { type Finding, failure, fine, install, warning } from "./report.ts";

const subject = "CSIDriver";

export interface DriverExpectations {
  /** Whom tokens have to be for; undefined where the settings are not known. */
  readonly audience: string | undefined;
  /** The API server's minor version; undefined where it is not known. */
  readonly minor: number | undefined;
}

/** Shorter, and a token may end in the middle of a build whose tool reads it once. */
const shortestLifetime = 1800;
/** What an API server makes of a request that names none. */
const defaultLifetime = 3600;
/** Since then tokens need not stand among a volume's attributes (KEP-5538). */
const tokensInSecrets = 35;

/** Whether the kubelet does with our volumes what they need. */
export function checkDriver(driver: Seen, expected: DriverExpectations): Finding {
  return judge(subject, driver, {
    missing: () => failure(subject, "there is no CSIDriver: no Pod can have a volume", install),
    found: (object) => judgeDriver(property(object, "spec"), expected),
  });
}

function judgeDriver(spec: unknown, expected: DriverExpectations): Finding {
  const wrong = [...wrongFields(spec), ...wrongTokens(spec, expected)];
  if (wrong.length > 0) return failure(subject, wrong.join("; "), install);
  const lifetime = lifetimeOf(spec);
  if (lifetime < shortestLifetime) {
    const found = `tokens live ${lifetime} s, but a build may take longer, and some tools read the token only once`;
    return warning(
      subject,
      found,
      `set TOKEN_LIFETIME in daemonset/settings.env to ${shortestLifetime} or more`,
    );
  }
  const isOld = expected.minor !== undefined && expected.minor < tokensInSecrets;
  if (property(spec, "serviceAccountTokenInSecrets") !== true && !isOld) {
    const found =
      "serviceAccountTokenInSecrets is not true: tokens are passed among the volume's attributes, which are sometimes logged";
    return warning(
      subject,
      found,
      `from Kubernetes 1.${tokensInSecrets} on, remove the component older-kubernetes`,
    );
  }
  return fine(
    subject,
    `tokens for ${show(audienceOf(spec))} live ${lifetime} s, and are renewed in volumes`,
  );
}

function wrongFields(spec: unknown): readonly string[] {
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

function wrongTokens(spec: unknown, { audience }: DriverExpectations): readonly string[] {
  const given = requestsOf(spec).map((request) => property(request, "audience"));
  if (given.length === 0) return ["tokenRequests is empty: volumes get no token"];
  if (audience === undefined || given.includes(audience)) return [];
  return [
    `tokenRequests are for ${given.map(show).join(", ")}, but the proxy accepts only tokens for ${show(audience)}`,
  ];
}

const requestsOf = (spec: unknown): readonly unknown[] => listOf(property(spec, "tokenRequests"));

const audienceOf = (spec: unknown): unknown => property(requestsOf(spec)[0], "audience");

const lifetimeOf = (spec: unknown): number =>
  Number(property(requestsOf(spec)[0], "expirationSeconds") ?? defaultLifetime);
