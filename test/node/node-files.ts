import type { FileHandle } from "node:fs/promises";
import * as fs from "node:fs/promises";
import type { NodeFiles } from "../../src/node/node-file.ts";

const { link, lstat, mkdir, open, readdir, readFile, rename, rmdir, unlink } = fs;

/** The system's calls, but for waiting until the disk has everything, which makes a test of hundreds of files slow. */
export const quickFiles: NodeFiles = {
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rmdir,
  unlink,
  open: async (...args: Parameters<typeof open>) => withCalls(await open(...args), () => ({})),
};

/** What changes something; the others change nothing, and a process that is killed before one is killed before the next. */
const changing: readonly string[] = [
  "link",
  "mkdir",
  "open",
  "rename",
  "rmdir",
  "unlink",
  "chmod",
  "writeFile",
  "sync",
];

/**
 * Calls that end with one that never takes place, as those of a process that is killed before it do. Nothing does after
 * it, either.
 * @param step which one, from 1
 */
export function filesKilledAt(step: number): NodeFiles {
  let count = 0;
  const takeStep = (name: string): void => {
    if (changing.includes(name)) count += 1;
    if (count >= step && name !== "close") throw new Error("killed");
  };
  const named = Object.entries(quickFiles).map(([name, call]) => [
    name,
    async (...args: readonly unknown[]): Promise<unknown> => {
      takeStep(name);
      const result: unknown = await Reflect.apply(call, undefined, args);
      return name === "open" ? withCalls(result as FileHandle, takeStep) : result;
    },
  ]);
  return Object.fromEntries(named);
}

/** A file as our code uses it. The system closes it when its process is killed. */
function withCalls(file: FileHandle, before: (name: string) => unknown): FileHandle {
  const calls = {
    chmod: (mode: number) => file.chmod(mode),
    writeFile: (content: string) => file.writeFile(content),
    sync: async () => undefined,
    close: () => file.close(),
  };
  const named = Object.entries(calls).map(([name, call]) => [
    name,
    async (argument: never): Promise<unknown> => {
      before(name);
      return call(argument);
    },
  ]);
  return Object.fromEntries(named);
}
