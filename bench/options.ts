import { parseArgs } from "node:util";

export const sections = ["pulls", "pushes", "small", "tunnels", "volumes", "memory"] as const;
export type Section = (typeof sections)[number];

/** How much is measured. */
export interface Plan {
  readonly sections: readonly Section[];
  /** All of it at full size, so that its figures are worth writing down. */
  readonly isWhole: boolean;
  /** How often everybody takes a turn, after one that does not count. */
  readonly rounds: number;
  readonly blobBytes: number;
  /** Of small requests, in each turn. */
  readonly wrkSeconds: number;
  /** Requests with a connection for each. */
  readonly newConnections: number;
  /** Volumes that are published one after the other. */
  readonly volumesInARow: number;
  /** How long 100 clients read. */
  readonly pullSeconds: number;
}

const mebibyte = 1024 * 1024;
const whole = {
  rounds: 7,
  blobBytes: 512 * mebibyte,
  wrkSeconds: 4,
  newConnections: 1_000,
  volumesInARow: 100,
  pullSeconds: 15,
};
const quick = {
  rounds: 1,
  blobBytes: 64 * mebibyte,
  wrkSeconds: 1,
  newConnections: 200,
  volumesInARow: 10,
  pullSeconds: 3,
};

/** Reads the command line of the bench. */
export function readOptions(
  args: readonly string[],
): { readonly ok: true; readonly plan: Plan } | { readonly ok: false; readonly reason: string } {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: "boolean", default: false },
        only: { type: "string", default: sections.join(",") },
      },
    });
    const names = values.only.split(",");
    const chosen = sections.filter((section) => names.includes(section));
    if (chosen.length < names.length) {
      return { ok: false, reason: `--only takes some of ${sections.join(",")}` };
    }
    const isWhole = !values.quick && chosen.length === sections.length;
    return {
      ok: true,
      plan: { ...(values.quick ? quick : whole), sections: chosen, isWhole },
    };
  } catch (error) {
    return { ok: false, reason: error instanceof Error ? error.message : String(error) };
  }
}
