import type { Log, LogFields } from "../log.ts";

/** What is wrong with each published volume; a change of it is a line in the log, its lasting is none. */
export interface VolumeTroubles {
  readonly of: (path: string) => readonly string[];
  readonly set: (path: string, sentences: readonly string[], fields: LogFields) => void;
  readonly forget: (path: string) => void;
}

export function createVolumeTroubles(log: Log): VolumeTroubles {
  const troubles = new Map<string, readonly string[]>();
  const of = (path: string): readonly string[] => troubles.get(path) ?? [];
  const forget = (path: string): void => {
    troubles.delete(path);
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
        troubles.set(path, sentences);
        log("warning", "the volume has problems", { ...fields, reason });
      }
    },
  };
}
