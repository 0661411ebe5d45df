/** How often the growth of a cost is measured before it counts as too fast: other processes disturb single measurements. */
const attempts = 8;
/** Shorter runs say more of the clock than of the work. */
const minRunMicroseconds = 20_000;

/**
 * How many times the CPU time an operation takes where its input is twice as large. Linear work takes twice, quadratic work
 * four times.
 * @param prepare makes an input of a size, and returns the operation on it
 * @param size of the smaller of the two inputs
 * @returns the smallest factor of several measurements, or the first one that is at most `enough`
 */
export function growthOf(
  prepare: (size: number) => () => unknown,
  size: number,
  enough: number,
): number {
  let least = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < attempts && least > enough; attempt += 1) {
    const small = prepare(size);
    const large = prepare(2 * size);
    const times = timesFor(small);
    const smallCpu = Math.min(cpuOf(small, times), cpuOf(small, times), cpuOf(small, times));
    const largeCpu = Math.min(cpuOf(large, times), cpuOf(large, times), cpuOf(large, times));
    least = Math.min(least, largeCpu / smallCpu);
  }
  return least;
}

/** How often an operation has to run for its time to be measurable. */
function timesFor(operation: () => unknown): number {
  let times = 1;
  while (cpuOf(operation, times) < minRunMicroseconds) times *= 2;
  return times;
}

/** Microseconds of CPU that this process takes for some runs. */
function cpuOf(operation: () => unknown, times: number): number {
  const { user, system } = process.cpuUsage();
  for (let run = 0; run < times; run += 1) operation();
  const after = process.cpuUsage();
  return after.user - user + (after.system - system);
}
