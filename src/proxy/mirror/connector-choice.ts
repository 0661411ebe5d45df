/** Chooses the connector by which a Pod's image is pulled. */
import { parseConnectorRef, showRef } from "../../connector/connector-ref.ts";
import { connectorAnnotation, sharedNamespace } from "../../connector/image-hosts.ts";
import type { ConnectorPlace, ConnectorsAt, Identity, Result } from "../../connector/platform.ts";
import type { RegistryAddress } from "../../connector/registry-address.ts";
import type { AdmissionOptions } from "../admission.ts";
import { denied } from "../registry-error.ts";
import type { ImageLogin } from "./image-login.ts";

/** So many connectors of a namespace are compared for an image; the right to use each one is asked for. */
const maxPlaces = 16;

/** An image as its name has it. */
export interface WantedImage {
  readonly registry: RegistryAddress;
  /** The whole path of the name, in which a connector's base path comes first. */
  readonly repository: string;
}

/** A connector that an image is pulled by, or none, with a remark where its ServiceAccount's annotation does not help. */
export type ConnectorChoice =
  | { readonly place: ConnectorPlace }
  | { readonly place: undefined; readonly remark: string | undefined };

export interface ChoiceOptions extends Pick<AdmissionOptions, "findConnector" | "mayUse"> {
  readonly connectorsAt: ConnectorsAt;
}

/**
 * The repository of an image at a connector, whose base path the image's name begins with: `app/web` of
 * `artifactory/x/app/web` below `/artifactory/x`.
 * @returns undefined where it is not below the base path
 */
export function repositoryBelow(basePath: string, repository: string): string | undefined {
  if (basePath === "") return repository;
  const prefix = `${basePath.slice(1)}/`;
  return repository.startsWith(prefix) ? repository.slice(prefix.length) : undefined;
}

/**
 * Chooses a connector that has the address of the image's registry, and that the ServiceAccount may use: the one of its
 * annotation; or of those in its own namespace the one with the longest base path; or one of those in `kube-public`, in
 * the same way.
 * @throws RegistryError 403 where it may use none of them, naming the right that is missing, or where several fit equally
 *   well; Unavailable
 */
export async function chooseConnector(
  image: WantedImage,
  { identity, namespace, annotation }: ImageLogin,
  options: ChoiceOptions,
): Promise<ConnectorChoice> {
  const annotated = await findAnnotated(image, identity, namespace, annotation, options);
  if ("place" in annotated) return annotated;
  let refusal = annotated.refusal;
  for (const from of new Set([namespace, sharedNamespace])) {
    for (const places of fittingPlaces(image, from, options)) {
      const rights = await Promise.all(
        places.map(({ ref }) => options.mayUse(identity, ref, "pull")),
      );
      const usable = places.filter((_, index) => rights[index]?.ok);
      if (usable.length > 1) throw ambiguous(usable, image, identity);
      const [place] = usable;
      if (place !== undefined) return { place };
      refusal ??= rights.find(isRefusal)?.reason;
    }
  }
  if (refusal !== undefined) throw denied(refusal);
  return { place: undefined, remark: annotated.remark };
}

const isRefusal = (right: Result<void>): right is Extract<Result<void>, { readonly ok: false }> =>
  !right.ok;

/** The connectors of a namespace that fit an image: those with the longest base path first. */
function fittingPlaces(
  { registry, repository }: WantedImage,
  namespace: string,
  { connectorsAt }: ChoiceOptions,
): readonly (readonly ConnectorPlace[])[] {
  const places = connectorsAt(namespace, registry.origin).filter(
    ({ basePath }) => repositoryBelow(basePath, repository) !== undefined,
  );
  if (places.length > maxPlaces) {
    throw denied(
      `${places.length} connectors of ${namespace} are at ${registry.origin}: ${adviceToAnnotate}`,
    );
  }
  const byLength = Map.groupBy(places, ({ basePath }) => basePath.length);
  return [...byLength].toSorted(([one], [other]) => other - one).map(([, group]) => group);
}

const adviceToAnnotate = `name one in the ServiceAccount's annotation ${connectorAnnotation}`;

function ambiguous(
  usable: readonly ConnectorPlace[],
  { registry }: WantedImage,
  { user }: Identity,
): Error {
  const names = usable.map(({ ref }) => showRef(ref)).toSorted();
  return denied(
    `${user} may use ${names.join(" and ")}, which are all at ${registry.origin}: ${adviceToAnnotate}`,
  );
}

/** What comes of an annotation where it names no connector that is used. */
interface Unfitting {
  /** The right that is missing for the connector that it names, which fits. */
  readonly refusal: string | undefined;
  /** Why it does not help. */
  readonly remark: string | undefined;
}

/**
 * Finds the connector of a ServiceAccount's annotation, where it fits and may be used. Of one in another namespace that may
 * not be used, nothing is told, not even whether it fits.
 */
async function findAnnotated(
  { registry, repository }: WantedImage,
  identity: Identity,
  namespace: string,
  annotation: string | undefined,
  { findConnector, mayUse }: ChoiceOptions,
): Promise<{ readonly place: ConnectorPlace } | Unfitting> {
  if (annotation === undefined) return { refusal: undefined, remark: undefined };
  const parsed = parseConnectorRef(annotation, namespace, connectorAnnotation);
  if (!parsed.ok) {
    const remark = `the annotation ${connectorAnnotation} of ${identity.user} is no [<namespace>/]<name>`;
    return { refusal: undefined, remark };
  }
  const ref = parsed.value;
  const allowed = await mayUse(identity, ref, "pull");
  const isNear = [namespace, sharedNamespace].includes(ref.namespace);
  if (!allowed.ok && !isNear) return { refusal: undefined, remark: allowed.reason };
  const found = await findConnector(ref);
  const address = found.state === "found" ? found.connector.address : undefined;
  const fits =
    address?.origin === registry.origin &&
    repositoryBelow(address.basePath, repository) !== undefined;
  if (!fits) {
    const remark = `the annotation ${connectorAnnotation} of ${identity.user} names ${showRef(ref)}, which is not there`;
    return { refusal: undefined, remark };
  }
  if (!allowed.ok) return { refusal: allowed.reason, remark: undefined };
  return { place: { ref, basePath: address.basePath } };
}
