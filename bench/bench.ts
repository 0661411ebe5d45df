/**
 * Side by side with what a user would run instead: `npm run bench [-- --quick] [-- --only pulls,small]`.
 *
 * This process only makes room: a mount namespace with a tmpfs of its own, so that no disk is
 * measured, and no mount outlives the run, however it ends. `run.ts` does the rest in there.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { requirePrograms } from "../tools/require-programs.ts";
import { readOptions } from "./options.ts";

const args = process.argv.slice(2);
const options = readOptions(args);
if (options.ok) await run();
else {
  process.stderr.write(`bench: ${options.reason}\n`);
  process.exitCode = 64;
}

async function run(): Promise<void> {
  await requirePrograms([
    "unshare",
    "mount",
    "setpriv",
    "curl",
    "nginx",
    "haproxy",
    "wrk",
    "docker-registry",
    "htpasswd",
  ]);
  execFileSync("npm", ["run", "--silent", "build"], {
    cwd: new URL("..", import.meta.url),
    stdio: ["ignore", "inherit", "inherit"],
  });
  const folder = await mkdtemp(join(tmpdir(), "oci-connector-bench-"));
  try {
    process.exitCode = await inside(folder);
  } finally {
    await rmdir(folder);
  }
}

async function inside(folder: string): Promise<number> {
  const privileges = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
  const script = fileURLToPath(new URL("run.ts", import.meta.url));
  const begin = 'mount -t tmpfs tmpfs "$TMPDIR" && exec "$@"';
  const child = spawn(
    "unshare",
    [
      ...privileges,
      "--mount",
      "--propagation",
      "private",
      "--",
      "sh",
      "-c",
      begin,
      "sh",
      process.execPath,
      script,
      ...args,
    ],
    { stdio: "inherit", env: { ...process.env, TMPDIR: folder } },
  );
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  const [status] = await once(child, "exit");
  return status ?? 1;
}
