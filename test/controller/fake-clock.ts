import type { Clock } from "../../src/controller/work-queue.ts";

export interface FakeClock extends Clock {
  /** Lets time pass, and everything happen that is due meanwhile. */
  advance(ms: number): void;
  /** How many things are waited for. */
  readonly waiting: number;
}

export function fakeClock(start: number = Date.parse("2026-01-01T00:00:00Z")): FakeClock {
  let time = start;
  const timers = new Set<{ readonly at: number; readonly action: () => void }>();
  return {
    now: () => time,
    after(ms, action) {
      const timer = { at: time + ms, action };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    advance(ms) {
      const end = time + ms;
      for (;;) {
        const [next] = [...timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
        if (next === undefined) break;
        timers.delete(next);
        time = Math.max(time, next.at);
        next.action();
      }
      time = end;
    },
    get waiting() {
      return timers.size;
    },
  };
}
