/** One line of `/proc/<pid>/mountinfo`, proc_pid_mountinfo(5), as far as it matters here. */
export interface MountEntry {
  readonly mountPoint: string;
  readonly fsType: string;
  readonly source: string;
}

/**
 * The mounts at exactly this path, the one that is seen last. The rest of a line is only read where
 * the path is right, since a node may have ten thousand of them.
 */
export function mountsAt(mountInfo: string, path: string): readonly MountEntry[] {
  const mounts: MountEntry[] = [];
  for (const line of mountInfo.split("\n")) {
    if (unescapeOctal(fieldAt(line, mountPointField)) !== path) continue;
    // Optional fields come before the separator, so what follows is counted from there.
    const [fsType = "", source = ""] = line.slice(line.indexOf(" - ") + 3).split(" ");
    mounts.push({ mountPoint: path, fsType, source: unescapeOctal(source) });
  }
  return mounts;
}

const mountPointField = 4;

function fieldAt(line: string, index: number): string {
  let start = 0;
  for (let field = 0; field < index; field++) {
    const space = line.indexOf(" ", start);
    if (space < 0) return "";
    start = space + 1;
  }
  const end = line.indexOf(" ", start);
  return end < 0 ? line.slice(start) : line.slice(start, end);
}

/** The kernel writes space, tab, newline, backslash and `#` as `\ooo`. */
export const unescapeOctal = (text: string): string =>
  text.includes("\\")
    ? text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
        String.fromCharCode(Number.parseInt(digits, 8)),
      )
    : text;
