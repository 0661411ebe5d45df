import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { LayerContent } from "./layer.ts";

/**
 * All that the program's image has: what changes rarely lies lowest. There is no shell, no package
 * manager, and no file of the machine's own certificates, since Node brings Mozilla's.
 * @param root this project, with its packages installed
 * @param compiled what `npm run build` has made of it
 */
export function programLayers(root: string, compiled: string): readonly LayerContent[] {
  return [
    {
      files: [
        [join(root, "node_modules/node/bin/node"), "/bin/node"],
        ["/bin/mount", "/bin/mount"],
        ["/bin/umount", "/bin/umount"],
      ],
      // Node says on stderr, in the middle of the log, if it can't open the folder of the system's certificates.
      folders: { "/etc/ssl/certs": 0o755 },
      texts: { "/etc/nsswitch.conf": "hosts: files dns\n" }, // or names of /etc/hosts would be asked of DNS first
    },
    { files: productionPackages(root).flatMap((folder) => packageFiles(root, folder)) },
    {
      files: [
        [join(root, "package.json"), "/app/package.json"], // says that these are ES modules
        [join(root, "LICENSE"), "/app/LICENSE"],
        [join(root, "proto"), "/app/proto"],
        [compiled, "/app/dist"],
      ],
    },
  ];
}

interface LockedPackage {
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
}

/** The folders of the packages that roles in a cluster need. */
function productionPackages(root: string): readonly string[] {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockedPackage>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev, optional, devOptional }]) => path && !dev && !optional && !devOptional)
    .map(([path]) => path)
    .filter((path) => existsSync(join(root, path)));
}

/** What Node reads of a package, and the terms it may be passed on under; no types, maps, tests or sources. */
const wanted = /\.(c|m)?js$|\.json$|\.proto$|\.wasm$|^(licen[cs]e|notice|copying)/i;
const unwanted = /^(node_modules|test|tests|__tests__|docs|examples?)$/;

function packageFiles(root: string, folder: string): readonly (readonly [string, string])[] {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry): readonly (readonly [string, string])[] => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return unwanted.test(entry.name) ? [] : packageFiles(root, path);
      return entry.isFile() && wanted.test(entry.name)
        ? [[join(root, path), `/app/${path}`] as const]
        : [];
    });
}
