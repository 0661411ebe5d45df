import { Unavailable } from "../connector/platform.ts";

/** For whom something is asked: whoever shares the group shares its turns, and so do the members of a group. */
export interface Asker {
  /** A namespace, or the address of a client that nobody knows yet. */
  readonly group: string;
  /** A subject of the namespace, or a connection from the address. */
  readonly member: string;
}

/** A bounded queue in which groups take turns, and the members of a group take turns in it. */
export interface FairQueue {
  /**
   * Runs a task when it is its turn.
   * @throws Unavailable where the queue is full and this asker has the most in it, or where the wait was too long;
   *   what the task throws
   */
  run<T>(asker: Asker, task: () => Promise<T>): Promise<T>;
}

export interface FairQueueOptions {
  /** What is waited for, in a message: `reviews of tokens`. */
  readonly what: string;
  /** How many tasks run at once. */
  readonly concurrency: number;
  /** How many tasks wait at most; {@link defaultMaxWaiting} unless given. */
  readonly maxWaiting?: number;
  /** After so many milliseconds in the queue a task is given up; 10,000 unless given. */
  readonly maxWaitMs?: number;
  /** Is called for each task that is not run. */
  readonly onReject?: (() => void) | undefined;
}

/** A task that waits is a closure with a token and a timer: some kilobytes. */
export const defaultMaxWaiting = 512;

interface Waiting {
  readonly start: () => void;
  readonly reject: (reason: string) => void;
}

/** The tasks of a group that wait, by member. The first member of the map is the next one. */
interface Group {
  readonly members: Map<string, Waiting[]>;
  count: number;
}

/**
 * Creates an empty queue. When it is full, the newest task of the member with the most tasks, in the group with the most
 * tasks, is rejected: a flood of one asker rejects itself.
 */
export function createFairQueue(options: FairQueueOptions): FairQueue {
  const { what, concurrency, maxWaiting = defaultMaxWaiting, maxWaitMs = 10_000 } = options;
  /** The first group of the map is the next one. */
  const groups = new Map<string, Group>();
  let running = 0;
  let waiting = 0;

  function enqueue({ group: groupName, member: memberName }: Asker, task: Waiting): void {
    const group = groups.get(groupName) ?? { members: new Map<string, Waiting[]>(), count: 0 };
    groups.set(groupName, group);
    const member = group.members.get(memberName) ?? [];
    group.members.set(memberName, member);
    member.push(task);
    group.count += 1;
    waiting += 1;
  }

  function remove({ group: groupName, member: memberName }: Asker, task: Waiting): void {
    const group = groups.get(groupName);
    const member = group?.members.get(memberName);
    const index = member?.indexOf(task) ?? -1;
    if (group === undefined || member === undefined || index < 0) return;
    member.splice(index, 1);
    group.count -= 1;
    waiting -= 1;
    if (member.length === 0) group.members.delete(memberName);
    if (group.count === 0) groups.delete(groupName);
  }

  /** Takes the next task, and puts its group and its member behind the others. */
  function dequeue(): Waiting | undefined {
    const [groupEntry] = groups;
    if (groupEntry === undefined) return undefined;
    const [groupName, group] = groupEntry;
    const [memberEntry] = group.members;
    if (memberEntry === undefined) return undefined;
    const [memberName, member] = memberEntry;
    const [task] = member;
    if (task === undefined) return undefined;
    groups.delete(groupName);
    groups.set(groupName, group);
    group.members.delete(memberName);
    group.members.set(memberName, member);
    remove({ group: groupName, member: memberName }, task);
    return task;
  }

  function rejectOne(): void {
    const largestGroup = largest(groups.values(), ({ count }) => count);
    const largestMember = largest(largestGroup?.members.values() ?? [], ({ length }) => length);
    largestMember?.at(-1)?.reject(`too many ${what} are waiting for the API server`);
  }

  function startNext(): void {
    while (running < concurrency) {
      const next = dequeue();
      if (next === undefined) return;
      next.start();
    }
  }

  return {
    run: (asker, task) =>
      new Promise((resolve, reject) => {
        const end = (): void => {
          running -= 1;
          startNext();
        };
        const entry: Waiting = {
          start() {
            clearTimeout(timer);
            running += 1;
            task().then(resolve, reject).finally(end);
          },
          reject(reason) {
            clearTimeout(timer);
            remove(asker, entry);
            options.onReject?.();
            reject(new Unavailable(reason));
          },
        };
        const timer = setTimeout(
          () => entry.reject(`${what} have waited too long for the API server`),
          maxWaitMs,
        );
        enqueue(asker, entry);
        startNext();
        if (waiting > maxWaiting) rejectOne();
      }),
  };
}

/** The first of the largest ones. */
function largest<T>(all: Iterable<T>, sizeOf: (one: T) => number): T | undefined {
  let found: T | undefined;
  for (const one of all) if (found === undefined || sizeOf(one) > sizeOf(found)) found = one;
  return found;
}
