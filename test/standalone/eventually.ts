import { eventually as askAgain } from "../support/eventually.ts";

/** Waits until something holds, and fails where it never does. */
export const eventually = (holds: () => boolean | Promise<boolean>): Promise<boolean> =>
  askAgain(holds, () => `never came true: ${holds}`);
