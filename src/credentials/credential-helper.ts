import { spawn } from "node:child_process";
import { join } from "node:path";
import type { Connector } from "../connector/connector.ts";
import { type Credential, createCredential } from "../connector/credential.ts";
import { parseJson, property } from "../connector/document.ts";
import type { ExecAuth } from "../connector/identity-auth.ts";
import { isDockerHub } from "../connector/registry-address.ts";
import { errorCode } from "../error-code.ts";
import { type Login, LoginError } from "./login.ts";

export interface CredentialHelperOptions {
  /** The folder that the operator names; undefined where there is none. */
  readonly folder: string | undefined;
  /** The two variables that helpers get: where programs are, and where their settings are. */
  readonly environment: { readonly PATH?: string | undefined; readonly HOME?: string | undefined };
  /** How long a helper may take; 30 s unless given. */
  readonly timeoutMs?: number;
}

const maxOutputBytes = 64 * 1024;

/**
 * Makes what runs docker's credential helpers (https://github.com/docker/docker-credential-helpers): `get`, with the
 * registry's host on standard input, and `{ServerURL, Username, Secret}` from standard output. A helper does not say how
 * long its login lives.
 */
export const createHelperRunner =
  ({ folder, environment, timeoutMs = 30_000 }: CredentialHelperOptions) =>
  async ({ helper }: ExecAuth, { address }: Connector, signal: AbortSignal): Promise<Login> => {
    const name = `docker-credential-${helper}`;
    if (folder === undefined) {
      const message = `${name} can't be run: start the process with --credential-helpers and the folder that it is in`;
      throw new LoginError("HelperFailed", message);
    }
    // The key that docker itself uses for its registry.
    const host = isDockerHub(address) ? "https://index.docker.io/v1/" : address.imageHost;
    const run = await runHelper(join(folder, name), host, environment, timeoutMs, signal);
    const credential = credentialIn(run);
    if (credential !== undefined) return { credential, expiresAt: undefined };
    const byHand = `echo ${host} | ${join(folder, name)} get`;
    throw new LoginError(
      "HelperFailed",
      `${name} ${whatWentWrong(run)}; to see for yourself: ${byHand}`,
    );
  };

/** What has become of a run: its exit code, null after a signal, and its output; or why it was ended, or never began. */
type HelperRun =
  | { readonly exitCode: number | null; readonly output: string; readonly reason?: undefined }
  | { readonly reason: string };

function runHelper(
  program: string,
  host: string,
  { PATH, HOME }: CredentialHelperOptions["environment"],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<HelperRun> {
  return new Promise((resolve) => {
    const env = {
      ...(PATH === undefined ? {} : { PATH }),
      ...(HOME === undefined ? {} : { HOME }),
    };
    // A process group of its own, so that whatever the helper has started ends with it.
    const child = spawn(program, ["get"], {
      env,
      cwd: "/",
      detached: true,
      stdio: ["pipe", "pipe", "ignore"],
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    let reason: string | undefined;
    const end = (why: string): void => {
      reason ??= why;
      if (child.pid !== undefined) killGroup(child.pid);
    };
    const timer = setTimeout(
      () => end(`has given nothing within ${timeoutMs / 1000} s`),
      timeoutMs,
    );
    const onAbort = (): void => end("was ended");
    signal.addEventListener("abort", onAbort, { once: true });
    const settle = (exitCode: number | null): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      const output = Buffer.concat(chunks).toString("utf8");
      resolve(reason === undefined ? { exitCode, output } : { reason });
    };
    child.once("error", (error) => {
      reason ??= `can't be run (${String(errorCode(error))})`;
      settle(null);
    });
    child.once("close", settle);
    child.stdout.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= maxOutputBytes) chunks.push(chunk);
      else end(`has given more than ${maxOutputBytes} bytes`);
    });
    child.stdin.on("error", () => undefined); // a helper may not read what it is sent
    child.stdin.end(`${host}\n`);
  });
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // all of it has ended
  }
}

/** The one message of a helper that is shown. Any other may have a secret in it. */
const notFound = "credentials not found in native keychain";

function whatWentWrong(run: HelperRun): string {
  if (run.reason !== undefined) return run.reason;
  const { exitCode, output } = run;
  if (exitCode === 0) return "has given no {ServerURL, Username, Secret}";
  if (output.includes(notFound)) return `says: ${notFound}`;
  return `has ended with ${exitCode === null ? "a signal" : `exit code ${exitCode}`}`;
}

/** @returns undefined for anything but a credential */
function credentialIn(run: HelperRun): Credential | undefined {
  if (run.reason !== undefined || run.exitCode !== 0) return undefined;
  const body = parseJson(run.output);
  const [username, password] = [property(body, "Username"), property(body, "Secret")];
  const isText = (value: unknown): value is string =>
    typeof value === "string" && value !== "" && !/\p{C}/u.test(value);
  if (!isText(username) || !isText(password)) return undefined;
  return username.includes(":") ? undefined : createCredential(username, password);
}
