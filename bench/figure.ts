/** One thing that was measured, of the connector alone. */
export interface Figure {
  readonly label: string;
  readonly value: number;
  readonly unit: "ms" | "MiB";
  /** What it is not to exceed. */
  readonly target?: number;
}
