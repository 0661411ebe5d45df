import { join } from "node:path";
import { writeImage } from "../../tools/image/scratch-image.ts";

const applets = ["sh", "sleep", "cat", "ls", "wget", "nslookup", "id", "stat", "mount", "touch"];
const moreApplets = [
  "date",
  "env",
  "sha256sum",
  "grep",
  "ps",
  "readlink",
  "rm",
  "httpd",
  "hostname",
];

/**
 * What every node has: `localhost/pause:1`, which holds a Pod's namespaces, and `localhost/box:1`, a
 * shell with some tools.
 * @returns the archives
 */
export function writeBusyboxImages(folder: string): readonly string[] {
  const links = [...applets, ...moreApplets].map((name) => [`/bin/${name}`, "busybox"] as const);
  const layers = [
    {
      folders: { "/tmp": 0o1777, "/etc": 0o755 },
      files: [["/bin/busybox", "/bin/busybox"] as const],
      links: Object.fromEntries(links),
    },
  ];
  const entrypoints = { pause: ["/bin/sleep", "2147483647"], box: ["/bin/sh"] };
  return Object.entries(entrypoints).map(([name, entrypoint]) => {
    const target = join(folder, `${name}.tar`);
    writeImage(target, { name: `localhost/${name}:1`, layers, entrypoint });
    return target;
  });
}
