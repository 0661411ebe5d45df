/** The files of a node under its own paths, though its folders are mounted elsewhere: two of them may be the same one. */
import { join } from "node:path";
import type { NodeFiles } from "./node-file.ts";

/**
 * Creates the calls by which the files of some folders are reached.
 * @param mounts where each folder of the node is mounted, by its path on the node
 */
export function mountedFiles(files: NodeFiles, mounts: ReadonlyMap<string, string>): NodeFiles {
  const folders = [...mounts.keys()].toSorted((one, other) => other.length - one.length);
  const here = (path: string): string => {
    const folder = folders.find((each) => path === each || path.startsWith(`${each}/`));
    if (folder === undefined) throw new TypeError(`${path} is in no folder that is mounted`);
    return join(mounts.get(folder) ?? "", path.slice(folder.length));
  };
  const { link, lstat, mkdir, open, readdir, readFile, rename, rmdir, unlink } = files;
  const calls = { lstat, mkdir, open, readdir, readFile, rmdir, unlink };
  const single = Object.entries(calls).map(([name, call]) => [
    name,
    async (path: string, ...others: readonly unknown[]): Promise<unknown> =>
      Reflect.apply(call, undefined, [here(path), ...others]),
  ]);
  return {
    ...Object.fromEntries(single),
    link: async (from: string, to: string) => link(here(from), here(to)),
    rename: async (from: string, to: string) => rename(here(from), here(to)),
  };
}
