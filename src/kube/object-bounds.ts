import { otherStatusManager } from "../connector/connector.ts";
import type { Problem } from "../connector/problem.ts";
import type { KubeObject } from "./object-store.ts";

/** How large objects of a collection may be. What is beyond that is known by its name alone. */
export interface ObjectBounds {
  /** The bytes of one object, as JSON. */
  readonly maxObjectBytes: number;
  /** The bytes of all objects of a namespace, as JSON without their status, and {@link objectBytes} for each. */
  readonly maxNamespaceBytes: number;
  /** Objects of a namespace that are known by their name for lack of room. Further ones are not known at all. */
  readonly maxNamesWithoutRoom: number;
}

/** Bounds for collections that the operator alone can fill: an API server takes no larger object. */
export const operatorBounds: ObjectBounds = {
  maxObjectBytes: 4 * 1024 * 1024,
  maxNamespaceBytes: Number.POSITIVE_INFINITY,
  maxNamesWithoutRoom: 0,
};

/** Bounds for collections that tenants can fill. A Connector usually has one kilobyte, and rules have some. */
export const tenantBounds: ObjectBounds = {
  maxObjectBytes: 512 * 1024,
  maxNamespaceBytes: 8 * 1024 * 1024,
  maxNamesWithoutRoom: 2_000,
};

/** What an object takes beside its content. */
const objectBytes = 512;

/** An object that is too large, of which only its metadata is known. */
export interface OversizedObject extends KubeObject {
  /** How large it is, and how large it may be. */
  readonly oversize: Pick<Problem, "found" | "wanted">;
}

/** What is wrong with an object that is too large; undefined for any other. */
export function oversizeProblem(object: KubeObject): Problem | undefined {
  const { oversize } = object as Partial<OversizedObject>;
  return oversize && { path: "metadata", ...oversize };
}

/** Creates what is kept of an object of which no more than its metadata could be read. */
export function createOversizedObject(
  object: KubeObject,
  bytes: number | undefined,
  { maxObjectBytes }: ObjectBounds,
): OversizedObject {
  const found = bytes === undefined ? "an object that is too large" : `an object of ${bytes} bytes`;
  return {
    ...metadataOf(object),
    oversize: { found, wanted: `at most ${maxObjectBytes} bytes` },
  };
}

/** The objects of a collection by what they take of their namespace's share. */
export interface ObjectBudget<T extends KubeObject> {
  /**
   * Takes an object in place of the one of its name that was there.
   * @returns what is to be kept: the object, or without its content where it is too large; undefined where too many
   *   others of its namespace are kept so for lack of room
   */
  take(object: T): T | undefined;
  /** Gives back what an object has taken. */
  release(object: T): void;
  /** Whether an object that had no room in its namespace's share might have some now. */
  readonly mayHaveRoom: boolean;
}

/**
 * Creates the budget of a collection without objects.
 * @param keep what is kept of an object that is not too large
 */
export function createObjectBudget<T extends KubeObject>(
  bounds: ObjectBounds,
  keep: (object: T) => T,
): ObjectBudget<T> {
  const { maxObjectBytes, maxNamespaceBytes, maxNamesWithoutRoom } = bounds;
  const taken = new Map<string, number>();
  const namespaces = new Map<string, number>();
  /** The objects of a namespace that are known by their name for lack of room. */
  const refused = new Map<string, Set<string>>();
  let mayHaveRoom = false;

  function release({ metadata: { name, namespace = "" } }: T): void {
    const key = `${namespace}/${name}`;
    const bytes = taken.get(key) ?? 0;
    taken.delete(key);
    const left = (namespaces.get(namespace) ?? 0) - bytes;
    if (left > 0) namespaces.set(namespace, left);
    else namespaces.delete(namespace);
    const others = refused.get(namespace);
    others?.delete(name);
    if (others?.size === 0) refused.delete(namespace);
    if (bytes > objectBytes && refused.has(namespace)) mayHaveRoom = true;
  }

  function charge({ metadata: { name, namespace = "" } }: T, bytes: number): void {
    taken.set(`${namespace}/${name}`, bytes);
    namespaces.set(namespace, (namespaces.get(namespace) ?? 0) + bytes);
  }

  return {
    get mayHaveRoom() {
      return mayHaveRoom;
    },
    release,
    take(object) {
      release(object);
      const { name, namespace = "" } = object.metadata;
      const oversized = (value: OversizedObject): T => {
        charge(object, objectBytes);
        return value as KubeObject as T;
      };
      if (oversizeProblem(object) !== undefined) return oversized(object as never);
      const bytes = jsonBytes(object);
      if (bytes > maxObjectBytes) return oversized(createOversizedObject(object, bytes, bounds));
      const kept = keep(object);
      const keptBytes = objectBytes + jsonBytes({ ...kept, status: undefined });
      const namespaceBytes = (namespaces.get(namespace) ?? 0) + keptBytes;
      if (namespaceBytes <= maxNamespaceBytes) {
        charge(object, keptBytes);
        return kept;
      }
      const others = refused.get(namespace) ?? new Set();
      if (others.size >= maxNamesWithoutRoom) return undefined;
      refused.set(namespace, others.add(name));
      const found = `an object of ${bytes} bytes beside others of its namespace, ${namespaceBytes} bytes together`;
      const wanted = `at most ${maxNamespaceBytes} bytes in a namespace`;
      return oversized({ ...metadataOf(object), oversize: { found, wanted } });
    },
  };
}

/**
 * The bytes of a value as JSON, without escapes. It makes no text, which would be as long as the value, and bears values
 * that are nested deeper than functions may call each other.
 */
function jsonBytes(value: unknown): number {
  const rest: unknown[] = [value];
  let bytes = 0;
  while (rest.length > 0) {
    const one = rest.pop();
    if (typeof one === "string") bytes += Buffer.byteLength(one) + 2;
    else if (typeof one !== "object" || one === null) bytes += String(one).length;
    else bytes += takeApart(one, rest);
  }
  return bytes;
}

/**
 * Adds the values of a list or an object to others.
 * @returns the bytes of everything but those
 */
function takeApart(whole: object, values: unknown[]): number {
  if (Array.isArray(whole)) {
    for (const item of whole) values.push(item);
    return whole.length + 1;
  }
  let bytes = 1;
  for (const [key, value] of Object.entries(whole)) {
    if (value === undefined) continue;
    bytes += Buffer.byteLength(key) + 4;
    values.push(value);
  }
  return bytes;
}

/** The parts of an object's metadata that programs read, whose size has a bound. Its status is kept: nobody but a controller writes that. */
function metadataOf(object: KubeObject): KubeObject {
  const { name, namespace, uid, resourceVersion, ...others } = object.metadata as {
    readonly generation?: unknown;
    readonly deletionTimestamp?: unknown;
  } & KubeObject["metadata"];
  const { generation, deletionTimestamp } = others;
  const { status } = object as { readonly status?: unknown };
  return {
    metadata: {
      name,
      uid,
      resourceVersion,
      ...(namespace === undefined ? {} : { namespace }),
      ...(generation === undefined ? {} : { generation }),
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    ...(status === undefined ? {} : { status }),
  };
}

/** An annotation with all that `kubectl apply` was given, which nobody here reads. */
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration";

/** What is kept of an object's managedFields: who else writes its status. */
function otherManagers(object: KubeObject): { readonly managedFields?: readonly object[] } {
  const manager = otherStatusManager(object);
  return manager === undefined ? {} : { managedFields: [{ manager, subresource: "status" }] };
}

/**
 * An object without its managedFields and the last that was applied, which are often the larger part of it. All that
 * stays of its managedFields is who else writes its status.
 */
export function withoutManagedFields<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...others } = object.metadata as {
    managedFields?: unknown;
    annotations?: Readonly<Record<string, unknown>>;
  };
  const metadata = { ...others, ...otherManagers(object) };
  if (metadata.annotations?.[lastApplied] === undefined) return { ...object, metadata };
  const { [lastApplied]: __, ...annotations } = metadata.annotations;
  return { ...object, metadata: { ...metadata, annotations } };
}

/** An object for those who read its spec alone: without labels, annotations and status. */
export function specOnly<T extends KubeObject>(object: T): T {
  const { status: _, ...others } = object as { readonly status?: unknown };
  const {
    managedFields: __,
    annotations: ___,
    labels: ____,
    ...metadata
  } = object.metadata as {
    readonly managedFields?: unknown;
    readonly annotations?: unknown;
    readonly labels?: unknown;
  };
  return { ...(others as T), metadata: { ...metadata, ...otherManagers(object) } as T["metadata"] };
}
