/** Seconds: from what is answered at once to what somebody would complain about. */
export const callBuckets: number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];
