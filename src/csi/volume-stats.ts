import { statfs } from "node:fs/promises";
import type { Log, LogFields } from "../log.ts";
import type { PublishRecord } from "./publish-record.ts";

/** What NodeGetVolumeStats reports of a volume. */
export interface VolumeStats {
  readonly bytes: Usage;
  readonly inodes: Usage;
  /** What is wrong with the volume (CSI's VolumeCondition): one sentence each, none where it is in order. */
  readonly abnormalities: readonly string[];
}

/** How much of something is used in a file system. */
export interface Usage {
  readonly total: number;
  readonly used: number;
  /** What is left for users other than root. */
  readonly available: number;
}

/** How full the file system at a path is, in bytes and inodes. */
export async function usageOf(path: string): Promise<Pick<VolumeStats, "bytes" | "inodes">> {
  const { bsize, blocks, bfree, bavail, files, ffree } = await statfs(path);
  return {
    bytes: { total: blocks * bsize, used: (blocks - bfree) * bsize, available: bavail * bsize },
    inodes: { total: files, used: files - ffree, available: ffree },
  };
}

/**
 * What is wrong with a volume by its record.
 * @param now milliseconds since 1970
 * @returns a sentence where the volume has no files or an expired token, or else nothing
 */
export function describeExpiry(record: PublishRecord | undefined, now: number): readonly string[] {
  if (record === undefined) return ["the volume has no files, or no record of them"];
  const { tokenExpiresAt } = record;
  if (tokenExpiresAt.getTime() > now) return [];
  return [`the token in the volume expired at ${tokenExpiresAt.toISOString()}`];
}

/** What the last refresh of each published volume found wrong. Only a change is logged. */
export interface VolumeConditions {
  /** What is wrong with the volume at a path: one sentence each. */
  readonly of: (path: string) => readonly string[];
  /** Replaces what is wrong with a volume, and logs it where it has changed. */
  readonly set: (path: string, sentences: readonly string[], fields: LogFields) => void;
  /** Removes a volume that is gone. */
  readonly forget: (path: string) => void;
}

/** Creates the conditions of a node's volumes. */
export function createVolumeConditions(log: Log): VolumeConditions {
  const conditions = new Map<string, readonly string[]>();
  const of = (path: string): readonly string[] => conditions.get(path) ?? [];
  const forget = (path: string): void => {
    conditions.delete(path);
  };
  return {
    of,
    forget,
    set(path, sentences, fields) {
      const reason = sentences.join("; ");
      if (reason === of(path).join("; ")) return;
      if (sentences.length === 0) {
        forget(path);
        log("info", "the volume is in order again", fields);
      } else {
        conditions.set(path, sentences);
        log("warning", "the volume has problems", { ...fields, reason });
      }
    },
  };
}
