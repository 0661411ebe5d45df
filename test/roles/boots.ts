/**
 * Lets a process of ours run in another boot of the machine: the id of the boot is the text of a file that the test
 * changes. It is loaded before everything else, by `node --import=…/boots.ts`; the code itself knows nothing of it.
 */
import promises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

const bootId = "/proc/sys/kernel/random/boot_id";
const readFile = promises.readFile as (path: unknown, options: unknown) => Promise<unknown>;

Object.assign(promises, {
  readFile: (path: unknown, options: unknown) =>
    readFile(path === bootId ? (process.env.TEST_BOOT_ID ?? bootId) : path, options),
});
syncBuiltinESMExports();
