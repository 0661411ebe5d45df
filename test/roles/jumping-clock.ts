/**
 * Lets time pass in a process of ours: each SIGUSR2 is `jump` more seconds. It is loaded before
 * everything else, by `node --import=…/jumping-clock.ts`; the code itself knows nothing of it.
 */
export const jump = 155;

let passed = 0;
const realNow = Date.now;

process.on("SIGUSR2", () => {
  passed += jump * 1000;
});

globalThis.Date = class extends Date {
  constructor(...args: readonly unknown[]) {
    super(...((args.length === 0 ? [realNow() + passed] : args) as [number]));
  }
  static override now(): number {
    return realNow() + passed;
  }
} as DateConstructor;
