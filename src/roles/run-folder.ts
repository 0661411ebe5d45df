import { chmod, lstat, mkdir } from "node:fs/promises";
import { show } from "../connector/problem.ts";
import { errorCode, unless } from "../error-code.ts";

/**
 * Makes the folder for volumes whose callers name none, or one in it, unless it is there. Nobody can list it, and
 * everybody can pass through to a volume whose name and group they have: the command of a `run` may run as another user.
 * @throws Error where it is not this process's alone
 */
export async function makeRunFolder(folder: string): Promise<void> {
  const made = await mkdir(folder)
    .then(() => true, unless(false, "EEXIST"))
    .catch((error: unknown) => {
      throw new Error(
        `the folder ${show(folder)} for volumes of "run" can't be made (${String(errorCode(error))}): name another one to the process by --run-folder`,
      );
    });
  if (made) await chmod(folder, 0o711);
  const found = await lstat(folder);
  const isOwn =
    found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
  if (!isOwn) {
    throw new Error(
      `${show(folder)}: found something that others may write to, wanted a folder of the user who runs the process: remove it, or name another one to the process by --run-folder`,
    );
  }
}
