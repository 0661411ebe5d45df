/**
 * Runs mocha where its mounts can't outlive it: `node tools/run-tests.ts [mocha's arguments]`.
 *
 * A mount namespace of its own takes every mount along when it ends, also after a kill -9. Without
 * root it needs a user namespace, in which its user may mount.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { requirePrograms } from "./require-programs.ts";

await requirePrograms([
  ...["unshare", "mount", "umount", "setpriv"],
  ...["docker-registry", "htpasswd", "skopeo", "buildah", "runc"],
]);
const privileges = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
const [command = "mocha", ...args] = process.argv.slice(2);
const child = spawn(
  "unshare",
  [...privileges, "--mount", "--propagation", "private", "--", command, ...args],
  { stdio: "inherit" },
);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
const [status, signal] = await once(child, "exit");
process.exitCode = signal === null ? status : 1;
