/** A role that runs. */
export interface Role {
  /** Ends in order: nothing new is taken, what is under way is finished, volumes stay mounted. */
  stop(): Promise<void>;
}
