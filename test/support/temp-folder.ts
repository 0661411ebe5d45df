import { mkdtempSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Stoppable } from "./cleanup.ts";

/** A folder of a test's own. */
export interface TempFolder extends Stoppable {
  readonly path: string;
  stop(): Promise<void>;
}

const folders = new Set<string>();

process.on("exit", () => {
  for (const path of folders) rmSync(path, { recursive: true, force: true });
});

/** Makes a folder that `stop` removes, and the end of this process at the latest. */
export function makeTempFolder(name = "test"): TempFolder {
  const path = mkdtempSync(join(tmpdir(), `oci-connector-${name}-`));
  folders.add(path);
  return {
    path,
    async stop() {
      await rm(path, { recursive: true, force: true });
      folders.delete(path);
    },
  };
}
