/** Waits until something holds, and fails with its last answer where it never does. */
export async function eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`never came true: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
