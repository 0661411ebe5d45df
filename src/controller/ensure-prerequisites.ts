import type { Connector } from "../connector/connector.ts";
import { parseConnector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { describeProblems, type Problem } from "../connector/problem.ts";
import type { KubeObject } from "../kube/object-store.ts";
import {
  bad,
  type ConditionState,
  type ConditionStates,
  good,
  type PartType,
  unknown,
  waitingFor,
} from "./conditions.ts";
import type { ConnectorSecrets, ReadConnectorSecrets } from "./connector-secrets.ts";
import type { EnsureService } from "./connector-service.ts";
import { generationOf } from "./connector-status.ts";
import type { GiveProxyAccess } from "./proxy-access.ts";

export interface ExamineOptions {
  readonly ensureService: EnsureService;
  readonly readSecrets: ReadConnectorSecrets;
  readonly giveProxyAccess: GiveProxyAccess;
}

/** What is known of a connector before its registry is asked. */
export interface Examined {
  readonly findings: ConditionStates;
  /** Differs after each change of the Connector's spec and of its Secrets. */
  readonly version: string;
  /** What to ask the registry with; undefined where it is too early for that. */
  readonly login: Login | undefined;
}

export interface Login {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** Differs where another login may succeed. */
  readonly version: string;
}

/** Makes what a connector needs in the cluster. @returns undefined where it is gone @throws as ApiClient.request */
export type ExamineConnector = (object: KubeObject) => Promise<Examined | undefined>;

export function connectorExaminer(options: ExamineOptions): ExamineConnector {
  const { ensureService, readSecrets, giveProxyAccess } = options;

  /** As without a right for us to read it there is none to pass on, the proxy's is not tried then. */
  async function accessFinding(
    { namespace }: Connector,
    read: ConnectorSecrets,
  ): Promise<ConditionState> {
    if (read.forbidden) return read.secret;
    const access = await giveProxyAccess(namespace);
    if (access.ok || read.isAnonymous || read.secret.status !== "True") return read.secret;
    return bad(
      "ProxyAccessDenied",
      `the proxy can't be allowed to read the Secret: ${access.reason}`,
    );
  }

  async function examineSecrets(
    connector: Connector,
    { generation, ...base }: Base,
  ): Promise<Examined> {
    const read = await readSecrets(connector);
    const secret = await accessFinding(connector, read);
    const secrets = secret.status === "True" ? read.upstream : undefined;
    const missing = secrets === undefined ? waitingFor("SecretReady") : undefined;
    const findings = {
      ...base,
      SecretReady: secret,
      LivenessReady: missing ?? asking,
      AuthReady: missing ?? waitingFor("LivenessReady"),
      CACertReady: read.caCert,
    };
    const login = secrets && { connector, secrets, version: `${generation} ${read.loginVersion}` };
    return { findings, version: `${generation} ${read.version}`, login };
  }

  return async (object) => {
    const parsed = parseConnector(object);
    const wrong = documentFindings(parsed.ok ? [] : parsed.problems);
    const { ConnectorClassReady = builtIn } = wrong;
    const isOurs = ConnectorClassReady.status === "True";
    const ProxyServiceReady = isOurs ? await ensureService(object) : waitingForClass;
    if (ProxyServiceReady === undefined) return undefined;
    const generation = `${object.metadata.uid}/${generationOf(object)}`;
    const base = { ConnectorClassReady, ProxyServiceReady };
    if (parsed.ok) return examineSecrets(parsed.value, { generation, ...base });
    await giveProxyAccess(object.metadata.namespace ?? ""); // to no Secret of this one
    const findings = { ...allWaitingFor(wrong), ...wrong, ...base };
    return { findings, version: generation, login: undefined };
  };
}

interface Base extends Pick<ConditionStates, "ConnectorClassReady" | "ProxyServiceReady"> {
  readonly generation: string;
}

const builtIn = good("ConnectorClassFound", "the connector class oci is built in");
const asking = unknown("Probing", "the registry is being probed");

const waitingForClass = waitingFor("ConnectorClassReady");

/** Of a document that is wrong, nothing can be told but what is wrong with it. */
function allWaitingFor(wrong: Partial<ConditionStates>): ConditionStates {
  const [type = "ConnectorClassReady"] = Object.keys(wrong) as (keyof ConditionStates)[];
  const waiting = waitingFor(type);
  return {
    ConnectorClassReady: waiting,
    SecretReady: waiting,
    LivenessReady: waiting,
    AuthReady: waiting,
    ProxyServiceReady: waiting,
    CACertReady: waiting,
  };
}

/** Where a problem with a Connector's document shows: the first prefix of its path that is named here. */
const places: readonly (readonly [prefix: string, type: PartType, reason: string])[] = [
  ["spec.connectorClassName", "ConnectorClassReady", "ConnectorClassNotFound"],
  ["spec.address", "LivenessReady", "AddressInvalid"],
  ["spec.auth.params", "AuthReady", "ParametersInvalid"],
  ["spec.auth", "SecretReady", "SecretRefInvalid"],
  ["", "ConnectorClassReady", "SpecInvalid"],
];

/**
 * What is wrong with a document, by the condition that shows it. Of a document of another class
 * nothing else is said, since the rest may mean anything.
 */
export function documentFindings(
  problems: readonly Problem[],
): Readonly<Partial<Record<PartType, ConditionState>>> {
  const placed = problems.map((problem) => ({ problem, place: placeOf(problem) }));
  const foreign = placed.filter(({ place }) => place === places[0]);
  const findings: Partial<Record<PartType, ConditionState>> = {};
  for (const { place } of foreign.length > 0 ? foreign : placed) {
    const [, type, reason] = place;
    const alike = placed.filter((other) => other.place === place).map(({ problem }) => problem);
    findings[type] ??= bad(reason, describeProblems(alike));
  }
  return findings;
}

function placeOf({ path }: Problem): (typeof places)[number] {
  const place = places.find(([prefix]) => path.startsWith(prefix));
  if (place === undefined) throw new Error("no prefix matches, although the last one is empty");
  return place;
}
