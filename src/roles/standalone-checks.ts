/** Checks that run before the standalone process writes anything, so that a start that fails by them leaves nothing behind. */
import { once } from "node:events";
import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import type { ListenSetting } from "../config/command-line.ts";
import { missingMountRight } from "../csi/volume-mounts.ts";

/** Programs of util-linux for calls that Node lacks: mount(2), umount(2) and flock(2). */
const neededPrograms = ["mount", "umount", "flock"];

/**
 * Checks that volumes can be mounted on this machine.
 * @param searchPath the value of `PATH`
 * @throws Error with what to do, where this user may not mount, or a program is missing
 */
export async function checkMountSupport(searchPath: string): Promise<void> {
  const missing = missingMountRight(await readFile("/proc/self/status", "utf8"));
  if (missing !== undefined) throw new Error(`volumes can't be mounted: ${missing}`);
  const found = await Promise.all(neededPrograms.map((program) => isProgram(program, searchPath)));
  const lacking = neededPrograms.filter((_, index) => !found[index]);
  if (lacking.length > 0) {
    const programs = lacking.join(", ");
    throw new Error(
      `found no ${programs} on the PATH, wanted util-linux, which has it: install it`,
    );
  }
}

async function isProgram(name: string, searchPath: string): Promise<boolean> {
  const folders = searchPath.split(":").filter((folder) => folder !== "");
  const tries = folders.map((folder) => access(join(folder, name), constants.X_OK));
  return (await Promise.allSettled(tries)).some(({ status }) => status === "fulfilled");
}

/**
 * Checks that all addresses are free, by listening on all of them for a moment. Another process may still take one
 * before the proxy does.
 * @throws Error with what to do, where an address is not available
 */
export async function checkAddresses(addresses: readonly ListenSetting[]): Promise<void> {
  const servers = [];
  try {
    for (const { host, port } of addresses) {
      const server = createServer((socket) => socket.destroy());
      server.listen(port, host);
      await once(server, "listening");
      servers.push(server);
    }
  } catch (error) {
    explainListening(error as NodeJS.ErrnoException);
  } finally {
    await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
  }
}

const listenFailures: Readonly<Record<string, string>> = {
  EADDRINUSE: "something else listens there: stop it, or name another address",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "this user may not listen there",
  ENOTFOUND: "the name is unknown",
  EAI_AGAIN: "DNS does not answer",
};

/**
 * Adds what to do to an error of listening.
 * @throws Error always: with what to do for a known code, or else the error itself
 */
export function explainListening(error: NodeJS.ErrnoException): never {
  const advice = listenFailures[error.code ?? ""];
  if (advice === undefined) throw error;
  throw new Error(`--listen: ${error.message}: ${advice}`, { cause: error });
}
