/**
 * Runs mocha where nothing outlives it: `node tools/run-tests.ts mocha [mocha's arguments]`.
 *
 * - Namespaces of its own end every mount and every process with it, also after a kill -9. Without
 *   root they need a user namespace, in which its user may mount.
 * - Everything in the temporary folder lies in one folder, which this run removes, or else the next.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { requirePrograms } from "./require-programs.ts";
import { makeRunFolder, removeAbandonedRunFolders } from "./run-folder.ts";

await requirePrograms([
  "unshare",
  "mount",
  "umount",
  "setpriv",
  "flock",
  "docker-registry",
  "htpasswd",
  "skopeo",
  "buildah",
  "runc",
]);
/** How long mocha may take to end after Ctrl-C: it waits for the test that runs, which may never end. */
const patienceMs = 2000;
const temporary = tmpdir();
for (const problem of await removeAbandonedRunFolders(temporary)) console.warn(problem);
const folder = makeRunFolder(temporary);
const privileges = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
const namespaces = [
  ...privileges,
  "--mount",
  "--propagation",
  "private",
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
];
/** The first process of a PID namespace: it has to wait for all that lose their parent, which a shell does and Node doesn't. */
const init = ["sh", "-c", '"$@"; exit $?', "sh"];
const [command = "mocha", ...args] = process.argv.slice(2);
// Much of a run is waiting. Whoever names files, or a debugger, gets one process and a fixed order.
if (args.length === 0) args.push("--parallel", "--jobs", "2");
const child = spawn(
  "setpriv",
  ["--pdeathsig", "KILL", "unshare", ...namespaces, "--", ...init, command, ...args],
  { stdio: "inherit", env: { ...process.env, TMPDIR: folder.path } },
);
// The end of unshare ends the first process, and that one's end all others of the namespace.
const end = (): boolean => child.kill("SIGKILL");
process.on("SIGTERM", end);
// A terminal sends it to mocha, too, which then says what it has found so far.
process.on("SIGINT", () => setTimeout(end, patienceMs).unref());
const [status, signal] = await once(child, "exit");
await folder.remove();
process.exitCode = signal === null ? status : 1;
