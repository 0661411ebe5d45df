import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { writeImage } from "./scratch-image.ts";

const root = join(import.meta.dirname, "../..");

/**
 * The image that the manifests run: Node, the program with what it depends on, mount and umount, and
 * the certificates of the machine's authorities. It has no shell.
 */
export function writeProgramImage(target: string, name: string): void {
  const own = ["package.json", "proto", "src"].map(
    (path) => [join(root, path), `/app/${path}`] as const,
  );
  const packages = productionPackages().map((path) => [join(root, path), `/app/${path}`] as const);
  writeImage(target, {
    name,
    layers: [
      {
        folders: { "/tmp": 0o1777 },
        files: [
          [join(root, "node_modules/node/bin/node"), "/bin/node"],
          ["/bin/mount", "/bin/mount"],
          ["/bin/umount", "/bin/umount"],
          ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt"],
        ],
      },
      { files: packages },
      { files: own },
    ],
    entrypoint: ["/bin/node", "/app/src/main.ts"],
  });
}

/** The folders of the packages that are not only for development. */
function productionPackages(): readonly string[] {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean; optional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true && existsSync(join(root, path)))
    .map(([path]) => path);
}

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
