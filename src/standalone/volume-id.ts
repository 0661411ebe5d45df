import { createHash } from "node:crypto";
import { isAbsolute, resolve } from "node:path";

/**
 * The id of the volume at a target path: whoever unmounts knows the path alone. Symbolic links are
 * not followed, so both sides have to resolve those in the path's parents first.
 * @throws TypeError for a relative path, which means another place in another process
 */
export function volumeIdOf(targetPath: string): string {
  if (!isAbsolute(targetPath)) throw new TypeError("a volume's target is an absolute path");
  return createHash("sha256").update(resolve(targetPath)).digest("hex").slice(0, 32);
}
