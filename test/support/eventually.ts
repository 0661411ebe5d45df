/**
 * Asks again and again until there is an answer.
 * @param question its answer, or undefined or false as long as there is none
 * @param complaint what to say when `timeout` milliseconds have passed
 */
export async function eventually<T>(
  question: () => T | undefined | false | Promise<T | undefined | false>,
  complaint: () => string,
  timeout = 10_000,
): Promise<T> {
  const deadline = performance.now() + timeout;
  for (;;) {
    // Read before the question: whatever it takes, a last one is asked after the deadline.
    const isLast = performance.now() > deadline;
    const answer = await question();
    if (answer !== undefined && answer !== false) return answer;
    if (isLast) throw new Error(`after ${timeout} ms: ${complaint()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
