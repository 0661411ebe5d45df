/** Anything that a test has started and has to end. */
export interface Stoppable {
  stop(): Promise<void> | void;
}

/** What a suite has started. */
export interface Cleanup extends Stoppable {
  /** Registers a resource, and gives it back. */
  add<T extends Stoppable>(resource: T): T;
  /** Registers an action. */
  defer(action: () => Promise<unknown> | unknown): void;
  /** Ends everything in reverse order, also where an end fails; then it is empty, and usable again. */
  stop(): Promise<void>;
}

/**
 * The resources of a suite or of a test:
 *
 *     const resources = cleanup();
 *     before(async () => { registry = resources.add(await startFakeRegistry()); });
 *     after(resources.stop);
 */
export function cleanup(): Cleanup {
  const actions: (() => Promise<unknown> | unknown)[] = [];
  return {
    add(resource) {
      actions.push(() => resource.stop());
      return resource;
    },
    defer(action) {
      actions.push(action);
    },
    async stop() {
      const errors: unknown[] = [];
      for (const action of actions.splice(0).reverse()) {
        try {
          await action();
        } catch (error) {
          errors.push(error);
        }
      }
      if (errors.length > 0) throw new AggregateError(errors, "could not clean up");
    },
  };
}
