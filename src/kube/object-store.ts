/** An object of the Kubernetes API, with the metadata that all of them have. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
  };
}

/** An object that was created, changed or deleted. */
export interface ObjectChange<T> {
  readonly name: string;
  readonly namespace: string | undefined;
  /** The object as it is now; undefined where it was deleted. */
  readonly object: T | undefined;
}

/** The objects of one kind, by namespace and name. */
export interface ObjectStore<T extends KubeObject> {
  get(name: string, namespace?: string): T | undefined;
  /** The objects of a namespace, or of all namespaces. */
  list(namespace?: string): readonly T[];
  set(object: T): void;
  delete(object: T): void;
  /** Replaces all objects by those of a new list: what is not in it was deleted meanwhile. */
  replace(objects: readonly T[]): void;
}

const keyOf = (name: string, namespace = ""): string => `${namespace}/${name}`;

/**
 * Creates an empty store.
 * @param onChange is called after each change, and not for an object that keeps its resourceVersion
 */
export function createObjectStore<T extends KubeObject>(
  onChange: (change: ObjectChange<T>) => void,
): ObjectStore<T> {
  const objects = new Map<string, T>();
  const report = ({ metadata: { name, namespace } }: T, object: T | undefined): void =>
    onChange({ name, namespace, object });
  const set = (object: T): void => {
    const key = keyOf(object.metadata.name, object.metadata.namespace);
    const before = objects.get(key)?.metadata.resourceVersion;
    objects.set(key, object);
    if (before !== object.metadata.resourceVersion) report(object, object);
  };
  const remove = (object: T): void => {
    if (objects.delete(keyOf(object.metadata.name, object.metadata.namespace))) {
      report(object, undefined);
    }
  };
  return {
    get: (name, namespace) => objects.get(keyOf(name, namespace)),
    list: (namespace) =>
      [...objects.values()].filter(
        ({ metadata }) => namespace === undefined || metadata.namespace === namespace,
      ),
    set,
    delete: remove,
    replace(listed) {
      const keys = new Set(listed.map(({ metadata: m }) => keyOf(m.name, m.namespace)));
      const deleted = [...objects].filter(([key]) => !keys.has(key)).map(([, object]) => object);
      for (const object of deleted) remove(object);
      for (const object of listed) set(object);
    },
  };
}
