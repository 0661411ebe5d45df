import { connectorApiVersion, connectorKind } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Condition } from "./conditions.ts";
import { applyObject, matchesDesired } from "./ensure-object.ts";
import { formatLoginRecord, type LoginRecord } from "./identity-login.ts";
import { type AuthRefusal, formatRefusal } from "./probe-registry.ts";

/** The path of a Connector: `/apis/…/namespaces/team-a/connectors/harbor`. */
export const connectorApiPath = ({ metadata: { name, namespace } }: KubeObject): string =>
  `/apis/${connectorApiVersion}/namespaces/${namespace}/connectors/${name}`;

/** The status that the controller writes for a Connector. */
export interface ConnectorStatus {
  /** The generation of the Connector that the conditions are about. */
  readonly observedGeneration: number;
  /** The address of the proxy for this connector. */
  readonly url: string;
  readonly conditions: readonly Condition[];
  /** The refusal of the credential that the Connector has. */
  readonly refusal: AuthRefusal | undefined;
  /** When a login was last obtained with the identity that the Connector has. */
  readonly login?: LoginRecord | undefined;
}

/** The generation of an object, which each change of its spec raises. */
export const generationOf = (object: KubeObject): number =>
  Number(property(object.metadata, "generation") ?? 0);

const observedGeneration = (object: KubeObject): unknown =>
  property(property(object, "status"), "observedGeneration");

/** Whether the status of a Connector is about its spec as it is now. */
export const isObserved = (object: KubeObject): boolean =>
  observedGeneration(object) === generationOf(object);

/**
 * Writes a status where it differs. It overwrites no change that somebody has made meanwhile: of two replicas that see
 * the same change, one writes it.
 * @param object the Connector as it was read
 * @returns the Connector as it is now, undefined where it is gone
 * @throws what `ApiClient.request` throws: ApiError 409 where the Connector has changed since it was read
 */
export async function writeStatus(
  client: Pick<ApiClient, "request">,
  object: KubeObject,
  { observedGeneration, url, conditions, refusal, login }: ConnectorStatus,
): Promise<KubeObject | undefined> {
  const authProbe = refusal === undefined ? {} : { authProbe: formatRefusal(refusal) };
  const identityLogin = login === undefined ? {} : { identityLogin: formatLoginRecord(login) };
  const status = {
    observedGeneration,
    proxy: { httpAddress: { url } },
    conditions,
    ...authProbe,
    ...identityLogin,
  };
  const found = property(object, "status");
  const hasOldRefusal = refusal === undefined && property(found, "authProbe") !== undefined;
  const hasOldLogin = login === undefined && property(found, "identityLogin") !== undefined;
  if (matchesDesired(found, status) && !hasOldRefusal && !hasOldLogin) return object;
  const { name, namespace, uid, resourceVersion } = object.metadata;
  const path = `${connectorApiPath(object)}/status`;
  const metadata = { name, namespace, uid, resourceVersion };
  const body = { apiVersion: connectorApiVersion, kind: connectorKind, metadata, status };
  try {
    return await applyObject(client, path, body);
  } catch (error) {
    if (hasStatus(error, 404)) return undefined;
    throw error;
  }
}
