/** An object of the API as we want it to be: only the fields that we have an opinion on. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly object[];
  };
  readonly [field: string]: unknown;
}

/** Whose fields these are, in an object's managedFields. */
export const fieldManager = "oci-connector";

const managedByLabel = "app.kubernetes.io/managed-by";
export const managedLabels: Readonly<Record<string, string>> = { [managedByLabel]: fieldManager };
export const managedSelector: string = `${managedByLabel}=${fieldManager}`;

/** Whether an object already is as a manifest wants it. What the manifest leaves open may be anything. */
export function isAsWanted(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(found) &&
      found.length === wanted.length &&
      wanted.every((item, index) => isAsWanted(found[index], item))
    );
  }
  if (typeof wanted !== "object" || wanted === null) return found === wanted;
  if (typeof found !== "object" || found === null) return false;
  const fields = found as Readonly<Record<string, unknown>>;
  return Object.entries(wanted).every(([key, value]) => isAsWanted(fields[key], value));
}
