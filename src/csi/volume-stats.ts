import { statfs } from "node:fs/promises";
import type { Log, LogFields } from "../log.ts";
import type { PublishRecord } from "./publish-record.ts";

export interface VolumeStats {
  readonly bytes: Usage;
  readonly inodes: Usage;
  /** What is wrong with the volume, a sentence each; none where all is well. */
  readonly abnormalities: readonly string[];
}

export interface Usage {
  readonly total: number;
  readonly used: number;
  readonly available: number;
}

/** How full the file system at the path is. */
export async function usageOf(path: string): Promise<Pick<VolumeStats, "bytes" | "inodes">> {
  const { bsize, blocks, bfree, bavail, files, ffree } = await statfs(path);
  return {
    bytes: { total: blocks * bsize, used: (blocks - bfree) * bsize, available: bavail * bsize },
    inodes: { total: files, used: files - ffree, available: ffree },
  };
}

/** What there is to say against the files, going by their record. */
export function describeExpiry(record: PublishRecord | undefined, now: number): readonly string[] {
  if (record === undefined) return ["the volume has no files, or no record of them"];
  const { tokenExpiresAt } = record;
  if (tokenExpiresAt.getTime() > now) return [];
  return [`the token in the volume expired at ${tokenExpiresAt.toISOString()}`];
}

/** What is wrong with each published volume; a change of it is a line in the log, its lasting is none. */
export interface VolumeConditions {
  readonly of: (path: string) => readonly string[];
  readonly set: (path: string, sentences: readonly string[], fields: LogFields) => void;
  readonly forget: (path: string) => void;
}

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
