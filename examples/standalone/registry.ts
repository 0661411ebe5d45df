import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Login, startTokenServer, type TokenServer } from "./token-server.ts";

export interface RegistryOptions {
  /** For its data and its configuration. */
  readonly folder: string;
  readonly port: number;
  readonly tokenPort: number;
  /** The only account. */
  readonly login: Login;
}

/**
 * Prepares a registry as companies run them, which lets nobody read or write without a token, and
 * starts the token server that it trusts.
 * @returns what `docker-registry serve` has to be given, and the token server
 */
export async function prepareRegistry(
  options: RegistryOptions,
): Promise<{ readonly configFile: string; readonly tokenServer: TokenServer }> {
  const { folder, port, tokenPort, login } = options;
  await mkdir(folder, { recursive: true });
  const service = "demo-registry";
  const certificateFile = join(folder, "token-server.crt");
  const tokenServer = await startTokenServer({
    users: new Map([[login.user, login.password]]),
    service,
    certificateFile,
    port: tokenPort,
  });
  const { realm, issuer } = tokenServer;
  const config = {
    version: "0.1",
    storage: { filesystem: { rootdirectory: join(folder, "data") } },
    http: { addr: `localhost:${port}`, secret: randomBytes(16).toString("hex") },
    auth: { token: { realm, service, issuer, rootcertbundle: certificateFile } },
  };
  const configFile = join(folder, "registry.yml");
  await writeFile(configFile, JSON.stringify(config)); // YAML takes JSON as it is
  return { configFile, tokenServer };
}

/** Whether something listens on a port of this machine. */
export async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, "localhost");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** @throws where nothing listens on the port after some seconds, and the interruption's reason where that comes first */
export async function waitForPort(port: number, interruption: AbortSignal): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    interruption.throwIfAborted();
    if (await isListening(port)) return;
    await sleep(50);
  }
  throw new Error(`nothing listens on port ${port}`);
}
