import { writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { cleanup, type Stoppable } from "../support/cleanup.ts";
import { type RunningProgram, startProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { startTestTokenServer } from "../support/token-server.ts";

/** A docker-registry with token authentication that can be killed and comes back under the same address, with what it had. */
export interface SoakRegistry extends Stoppable {
  readonly url: string;
  readonly username: string;
  readonly password: string;
  /** Kills it, and starts it anew. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startSoakRegistry(): Promise<SoakRegistry> {
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  const folder = resources.add(makeTempFolder("soak")).path;
  const users = new Map([[login.username, login.password]]);
  const tokens = resources.add(await startTestTokenServer(users));
  const port = await freePort();
  const configFile = join(folder, "config.yml");
  const rootcertbundle = join(folder, "token-certificate.pem");
  await writeFile(rootcertbundle, tokens.certificate);
  const { realm, service, issuer } = tokens;
  const config = {
    version: "0.1",
    log: { level: "error", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, "data") } },
    http: { addr: `127.0.0.1:${port}`, secret: "registry" },
    auth: { token: { realm, service, issuer, rootcertbundle } },
  };
  await writeFile(configFile, JSON.stringify(config));
  const start = (): Promise<RunningProgram> =>
    startProgram("docker-registry", ["serve", configFile], {});
  let program = await start();
  resources.defer(() => program.stop());
  return {
    ...login,
    url: `http://localhost:${port}`,
    async restart() {
      program.signal("SIGKILL");
      await program.ended;
      program = await start();
    },
    stop: resources.stop,
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
