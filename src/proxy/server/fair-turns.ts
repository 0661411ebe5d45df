/** Who sends a request, as far as that is known before the request is looked at. */
export interface Sender {
  /** The subject for whom a token was verified on this connection, or else the client's address. */
  readonly name: string;
  /** Whether a token was verified on this connection. */
  readonly hasIdentity: boolean;
}

/** Lets requests start so that nobody who sends many of them at a time keeps the event loop from the others. */
export interface FairTurns {
  /** Starts a request now, or in one of the next rounds of the event loop. */
  enter(sender: Sender, start: () => void): void;
}

/** Requests of senders with an identity that start in one round of the event loop. Others' need some ten rounds. */
const maxKnownPerRound = 4;
/** Requests of all others that do. Everybody's first one is among them, and a round of them takes half a millisecond. */
const maxStrangersPerRound = 4;

/**
 * Creates the turns that all listeners of a proxy share. As long as few requests come at a time, each starts at once. Of
 * many, each sender gets one in turn. Those with an identity and those without have turns of their own. What waits is
 * bounded by the number of connections, since each has one request that may start.
 */
export function createFairTurns(): FairTurns {
  const known = new SenderQueues(maxKnownPerRound);
  const strangers = new SenderQueues(maxStrangersPerRound);
  let isScheduled = false;
  const schedule = (): void => {
    if (isScheduled) return;
    isScheduled = true;
    setImmediate(nextRound);
  };
  const nextRound = (): void => {
    isScheduled = false;
    const hasStarted = [known.nextRound(), strangers.nextRound()].includes(true);
    if (hasStarted) schedule();
  };
  return {
    enter({ name, hasIdentity }, start) {
      schedule();
      (hasIdentity ? known : strangers).enter(name, start);
    },
  };
}

/** What each sender waits to start, taken from one sender after the other. */
class SenderQueues {
  readonly #maxPerRound: number;
  readonly #queues = new Map<string, (() => void)[]>();
  #started = 0;

  constructor(maxPerRound: number) {
    this.#maxPerRound = maxPerRound;
  }

  enter(sender: string, start: () => void): void {
    if (this.#queues.size === 0 && this.#started < this.#maxPerRound) {
      this.#started += 1;
      start();
      return;
    }
    const queue = this.#queues.get(sender);
    if (queue === undefined) this.#queues.set(sender, [start]);
    else queue.push(start);
  }

  /** Starts those whose turn it is. @returns whether there were any */
  nextRound(): boolean {
    this.#started = 0;
    while (this.#started < this.#maxPerRound) {
      const start = this.#take();
      if (start === undefined) break;
      this.#started += 1;
      start();
    }
    return this.#started > 0;
  }

  #take(): (() => void) | undefined {
    const [first] = this.#queues;
    if (first === undefined) return undefined;
    const [sender, queue] = first;
    const start = queue.shift();
    this.#queues.delete(sender);
    if (queue.length > 0) this.#queues.set(sender, queue);
    return start;
  }
}
