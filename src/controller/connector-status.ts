import { connectorApiVersion, connectorKind } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Condition } from "./conditions.ts";
import { applyObject, isAsWanted } from "./ensure-object.ts";
import { type AuthRefusal, writtenRefusal } from "./probe-outcome.ts";

/** `/apis/…/namespaces/team-a/connectors/harbor` */
export const connectorPath = ({ metadata: { name, namespace } }: KubeObject): string =>
  `/apis/${connectorApiVersion}/namespaces/${namespace}/connectors/${name}`;

/** What the controller says of a Connector. */
export interface ConnectorStatus {
  readonly observedGeneration: number;
  readonly url: string;
  readonly conditions: readonly Condition[];
  readonly refusal: AuthRefusal | undefined;
}

export const generationOf = (object: KubeObject): number =>
  Number(property(object.metadata, "generation") ?? 0);

const observedGeneration = (object: KubeObject): unknown =>
  property(property(object, "status"), "observedGeneration");

/** Whether a controller has said something of a Connector. */
export const hasBeenSeen = (object: KubeObject): boolean =>
  observedGeneration(object) !== undefined;

/** Whether it was the Connector as it is now. */
export const isObserved = (object: KubeObject): boolean =>
  observedGeneration(object) === generationOf(object);

/**
 * Writes a status where it differs. Whoever else has changed the Connector meanwhile is not
 * overwritten: of two replicas that see the same change, one writes it.
 * @returns the Connector as it is now, undefined where it is gone
 * @throws as ApiClient.request: 409 where it has changed since it was looked at
 */
export async function writeStatus(
  client: Pick<ApiClient, "request">,
  object: KubeObject,
  { observedGeneration, url, conditions, refusal }: ConnectorStatus,
): Promise<KubeObject | undefined> {
  const authProbe = refusal === undefined ? {} : { authProbe: writtenRefusal(refusal) };
  const status = { observedGeneration, proxy: { httpAddress: { url } }, conditions, ...authProbe };
  const found = property(object, "status");
  const isLeft = refusal === undefined && property(found, "authProbe") !== undefined;
  if (isAsWanted(found, status) && !isLeft) return object;
  const { name, namespace, uid, resourceVersion } = object.metadata;
  const path = `${connectorPath(object)}/status`;
  const metadata = { name, namespace, uid, resourceVersion };
  const body = { apiVersion: connectorApiVersion, kind: connectorKind, metadata, status };
  try {
    return await applyObject(client, path, body);
  } catch (error) {
    if (hasStatus(error, 404)) return undefined;
    throw error;
  }
}
