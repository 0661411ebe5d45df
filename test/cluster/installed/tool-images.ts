/** Images with tools for Pods, made of this machine's programs. */
import { existsSync, realpathSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { writeImage } from "../../../tools/image/scratch-image.ts";
import { requirePrograms } from "../../../tools/require-programs.ts";
import type { Cluster } from "../cluster.ts";

const applets = [
  "sh",
  "cat",
  "cp",
  "ls",
  "mkdir",
  "rm",
  "sleep",
  "env",
  "id",
  "wget",
  "base64",
  "nc",
  "nslookup",
];

export interface ToolImage {
  /** `skopeo` becomes `localhost/skopeo:1`. */
  readonly name: string;
  /** Names of the system's programs, or paths. */
  readonly programs: readonly string[];
}

/** Makes an image with programs and a shell, and gives it to every node. @returns its name */
export async function loadToolImage(cluster: Cluster, image: ToolImage): Promise<string> {
  await requirePrograms(["busybox", ...image.programs.filter((program) => !program.includes("/"))]);
  const name = `localhost/${image.name}:1`;
  const archive = join(cluster.folder, `${image.name}.tar`);
  const files = image.programs.map((program): readonly [string, string] => {
    const path = program.includes("/") ? program : whereIs(program);
    return [realpathSync(path), `/bin/${path.slice(path.lastIndexOf("/") + 1)}`];
  });
  const layer = {
    folders: { "/tmp": 0o1777, "/var/tmp": 0o1777, "/root": 0o700, "/run": 0o755 },
    files: [["/bin/busybox", "/bin/busybox"] as const, ...files],
    links: Object.fromEntries(applets.map((applet) => [`/bin/${applet}`, "busybox"])),
    texts: {
      "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
      "/etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
      "/etc/nsswitch.conf": "hosts: files dns\n",
    },
  };
  writeImage(archive, { name, layers: [layer], entrypoint: ["/bin/sh"] });
  await cluster.load(archive);
  await rm(archive);
  return name;
}

function whereIs(program: string): string {
  const folders = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
  const path = folders.map((folder) => join(folder, program)).find(existsSync);
  if (path === undefined) throw new Error(`${program} is in none of ${folders.join(", ")}`);
  return path;
}
