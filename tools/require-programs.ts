/**
 * Sees to it that programs of the system are there, for tests, the demo and the bench:
 *
 *   node tools/require-programs.ts skopeo buildah docker-registry
 *
 * Nothing is printed where nothing is missing. Root on Debian or Ubuntu gets what is missing from
 * apt-get; everybody else is told what to install.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { delimiter, resolve } from "node:path";

/** The Debian package of each program that is not called like its package. */
const packages: ReadonlyMap<string, string> = new Map([
  ["/usr/lib/cni/bridge", "containernetworking-plugins"],
  ["busybox", "busybox-static"],
  ["chrt", "util-linux"],
  ["etcd", "etcd-server"],
  ["flock", "util-linux"],
  ["htpasswd", "apache2-utils"],
  ["ip", "iproute2"],
  ["mount", "mount"],
  ["nginx", "nginx-light"],
  ["nsenter", "util-linux"],
  ["ps", "procps"],
  ["script", "bsdutils"],
  ["setpriv", "util-linux"],
  ["umount", "mount"],
  ["unshare", "util-linux"],
]);

const packageOf = (program: string): string => packages.get(program) ?? program;

/** Folders that hold programs for root, and are often not in the PATH of others. */
const systemFolders = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/** Some programs are not there, and could not be installed. */
export class MissingPrograms extends Error {
  override readonly name = "MissingPrograms";
}

/** Those of the programs that are neither in the PATH nor in a folder of the system's own; one may be named by its path. */
export function missingPrograms(programs: readonly string[]): readonly string[] {
  const folders = [...(process.env.PATH ?? "").split(delimiter), ...systemFolders];
  return programs.filter(
    (program) => !folders.some((folder) => folder !== "" && isExecutable(resolve(folder, program))),
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Installs the programs that are missing.
 * @throws MissingPrograms naming each program and its package, where that can't be done
 */
export async function requirePrograms(programs: readonly string[]): Promise<void> {
  const missing = missingPrograms(programs);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0 || !isDebian()) {
    throw new MissingPrograms(`${describe(missing)}. ${advice(missing)}`);
  }
  const output = await install([...new Set(missing.map(packageOf))]);
  const left = missingPrograms(missing);
  if (left.length > 0) {
    throw new MissingPrograms(`${describe(left)}, and apt-get could not install them:\n${output}`);
  }
}

const describe = (missing: readonly string[]): string =>
  `missing programs: ${missing.map((name) => `${name} (Debian package ${packageOf(name)})`).join(", ")}`;

const advice = (missing: readonly string[]): string =>
  `Install them, as root on Debian or Ubuntu with: apt-get install --no-install-recommends ${[...new Set(missing.map(packageOf))].join(" ")}`;

/** Debian, Ubuntu, and what derives from them. */
function isDebian(): boolean {
  try {
    return /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(readFileSync("/etc/os-release", "utf8"));
  } catch {
    return false;
  }
}

/** Installs from the package lists that are there, and from fresh ones where those don't do. */
async function install(names: readonly string[]): Promise<string> {
  process.stderr.write(`installing ${names.join(" ")}\n`);
  const allowServices = denyServices();
  try {
    const first = await aptGet(["install", "-y", "--no-install-recommends", ...names]);
    if (first.ok) return first.output;
    const update = await aptGet(["update", "-o", "APT::Update::Error-Mode=any"]);
    const second = await aptGet(["install", "-y", "--no-install-recommends", ...names]);
    return update.output + second.output;
  } finally {
    allowServices();
  }
}

const policyFile = "/usr/sbin/policy-rc.d";

/**
 * Keeps packages from starting their services. Debian asks this one file before it starts any, with
 * systemd or without. One that the machine has already stays. Ours denies only as long as this
 * process lives, so that it does no harm should it be left behind.
 * @returns a function that takes the denial away
 */
function denyServices(): () => void {
  const policy = `#!/bin/sh\n# made by require-programs.ts while it installs\n[ -d /proc/${process.pid} ] && exit 101\nexit 0\n`;
  try {
    writeFileSync(policyFile, policy, { flag: "wx", mode: 0o755 });
  } catch {
    return () => {};
  }
  return () => rmSync(policyFile, { force: true });
}

/** Other users of apt-get are waited for, and a mirror that fails is asked again. */
const aptOptions = ["-q", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300"];

function aptGet(args: readonly string[]): Promise<{ ok: boolean; output: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const child = spawn("apt-get", [...aptOptions, ...args], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    const collect = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", (error) => resolve({ ok: false, output: `apt-get: ${error.message}\n` }));
    child.on("close", (status) => resolve({ ok: status === 0, output }));
  });
}

if (process.argv[1] === import.meta.filename) {
  try {
    await requirePrograms(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof MissingPrograms)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
