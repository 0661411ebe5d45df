/** What every object of the API has. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
  };
}

/** An object that has come, changed or gone. */
export interface Change<T> {
  readonly name: string;
  readonly namespace: string | undefined;
  /** Undefined where it is gone. */
  readonly object: T | undefined;
}

export interface ObjectStore<T extends KubeObject> {
  get(name: string, namespace?: string): T | undefined;
  list(namespace?: string): readonly T[];
  set(object: T): void;
  delete(object: T): void;
  /** Makes the store what a new list says: what is not in it has gone meanwhile. */
  replace(objects: readonly T[]): void;
}

const keyOf = (name: string, namespace = ""): string => `${namespace}/${name}`;

/** Objects of one kind by their name. `changed` is called after each change, not for what stays as it was. */
export function createObjectStore<T extends KubeObject>(
  changed: (change: Change<T>) => void,
): ObjectStore<T> {
  const objects = new Map<string, T>();
  const report = ({ metadata: { name, namespace } }: T, object: T | undefined): void =>
    changed({ name, namespace, object });
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
    replace(present) {
      const keys = new Set(present.map(({ metadata: m }) => keyOf(m.name, m.namespace)));
      const gone = [...objects].filter(([key]) => !keys.has(key)).map(([, object]) => object);
      for (const object of gone) remove(object);
      for (const object of present) set(object);
    },
  };
}
