import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { describeProblems, type Problem } from "../connector/problem.ts";
import { parseListedConnector } from "../kube/find-connector.ts";
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
import { loginState, readLoginRecord } from "./identity-login.ts";
import type { GrantProxyAccess } from "./proxy-access.ts";

/** The functions that make and read what a connector needs. */
export interface PrerequisitesOptions {
  readonly ensureService: EnsureService;
  readonly readSecrets: ReadConnectorSecrets;
  readonly grantProxyAccess: GrantProxyAccess;
}

/** What is known of a connector before its registry is probed. */
export interface Prerequisites {
  /** The states of all conditions; those of the registry are Unknown. */
  readonly states: ConditionStates;
  /** Differs after each change of the Connector's spec and of its Secrets. */
  readonly version: string;
  /** What to probe the registry with; undefined where the connector is not complete enough for that. */
  readonly login: RegistryLogin | undefined;
}

/** A registry and the credential for it. */
export interface RegistryLogin {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** Differs where a login may have another outcome. */
  readonly version: string;
}

/**
 * Makes what a connector needs in the cluster (its Service, the proxy's right to its Secrets) and reads its Secrets.
 * @param object the Connector
 * @returns undefined where the Connector is gone
 * @throws what `ApiClient.request` throws
 */
export type EnsurePrerequisites = (object: KubeObject) => Promise<Prerequisites | undefined>;

/** Creates the function that makes what a connector needs in the cluster. */
export function createPrerequisitesEnsurer(options: PrerequisitesOptions): EnsurePrerequisites {
  const { ensureService, readSecrets, grantProxyAccess } = options;

  /**
   * The state of SecretReady. Where the controller may not read the Secret itself, it has no right that it could grant
   * to the proxy.
   */
  async function secretReadyState(
    { namespace }: Connector,
    read: ConnectorSecrets,
  ): Promise<ConditionState> {
    if (read.isForbidden) return read.secretState;
    const access = await grantProxyAccess(namespace);
    if (access.ok || read.isAnonymous || read.secretState.status !== "True")
      return read.secretState;
    return bad(
      "ProxyAccessDenied",
      `the proxy can't be allowed to read the Secret: ${access.reason}`,
    );
  }

  async function readConnectorSecrets(
    connector: Connector,
    { object, generation, ...base }: DocumentStates,
  ): Promise<Prerequisites> {
    const read = await readSecrets(connector);
    const loginVersion = `${generation} ${read.loginVersion}`;
    const found = await secretReadyState(connector, read);
    const isPending = found.status === "Unknown";
    const secret = isPending ? loginState(readLoginRecord(object, loginVersion)) : found;
    const secrets = secret.status === "False" ? undefined : read.upstream;
    const missing = secrets === undefined ? waitingFor("SecretReady") : undefined;
    const states = {
      ...base,
      SecretReady: secret,
      LivenessReady: missing ?? probing,
      AuthReady: missing ?? waitingFor("LivenessReady"),
      CACertReady: read.caCertState,
    };
    const login = secrets && { connector, secrets, version: loginVersion };
    return { states, version: `${generation} ${read.version}`, login };
  }

  return async (object) => {
    const parsed = parseListedConnector(object);
    const wrong = documentConditions(parsed.ok ? [] : parsed.problems);
    const { ConnectorClassReady = documentState(parsed.ok ? parsed.value : {}) } = wrong;
    const isOci = ConnectorClassReady.status === "True";
    const ProxyServiceReady = isOci ? await ensureService(object) : waitingForClass;
    if (ProxyServiceReady === undefined) return undefined;
    const generation = `${object.metadata.uid}/${generationOf(object)}`;
    const base = { ConnectorClassReady, ProxyServiceReady };
    if (parsed.ok) return readConnectorSecrets(parsed.value, { object, generation, ...base });
    await grantProxyAccess(object.metadata.namespace ?? ""); // to the Secrets of the other connectors in the namespace
    const states = { ...allWaitingFor(wrong), ...wrong, ...base };
    return { states, version: generation, login: undefined };
  };
}

/** What is known of a connector from its document and its Service. */
interface DocumentStates
  extends Pick<ConditionStates, "ConnectorClassReady" | "ProxyServiceReady"> {
  readonly object: KubeObject;
  readonly generation: string;
}

const builtIn = "the connector class oci is built in";

/** The state of ConnectorClassReady where a document is valid: it also tells of what works for now alone. */
const documentState = ({ deprecated = [] }: Pick<Connector, "deprecated">): ConditionState =>
  deprecated.length === 0
    ? good("ConnectorClassFound", builtIn)
    : good(
        "SpecDeprecated",
        `${builtIn}; the next release refuses this Connector: ${describeProblems(deprecated)}`,
      );

const probing = unknown(
  "Probing",
  "a probe of the registry is pending; two registries of a namespace are probed at a time",
);

const waitingForClass = waitingFor("ConnectorClassReady");

/** The states of all conditions where a document is wrong: they wait for the first condition that is False. */
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

/** The condition that shows a problem with a Connector's document: that of the first prefix of the problem's path. */
const places: readonly (readonly [prefix: string, type: PartType, reason: string])[] = [
  ["spec.connectorClassName", "ConnectorClassReady", "ConnectorClassNotFound"],
  ["spec.address", "LivenessReady", "AddressInvalid"],
  ["spec.auth.params", "AuthReady", "ParametersInvalid"],
  ["spec.auth", "SecretReady", "SecretRefInvalid"],
  ["", "ConnectorClassReady", "SpecInvalid"],
];

/**
 * The states of the conditions that show the problems of a document. Where the document is of another class, that is
 * the only one, since the rest may mean anything there.
 */
export function documentConditions(
  problems: readonly Problem[],
): Readonly<Partial<Record<PartType, ConditionState>>> {
  const placed = problems.map((problem) => ({ problem, place: placeOf(problem) }));
  const foreign = placed.filter(({ place }) => place === places[0]);
  const states: Partial<Record<PartType, ConditionState>> = {};
  for (const { place } of foreign.length > 0 ? foreign : placed) {
    const [, type, reason] = place;
    const problemsThere = placed
      .filter((other) => other.place === place)
      .map(({ problem }) => problem);
    states[type] ??= bad(reason, describeProblems(problemsThere));
  }
  return states;
}

function placeOf({ path }: Problem): (typeof places)[number] {
  const place = places.find(([prefix]) => path.startsWith(prefix));
  if (place === undefined) throw new Error("no prefix matches, although the last one is empty");
  return place;
}
