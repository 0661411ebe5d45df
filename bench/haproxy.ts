import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningProgram, startProgram } from "../test/support/program.ts";
import { freePort, listens } from "./free-port.ts";

/** haproxy as one thread that passes the bytes of connections on to one address, and understands none of them. */
export async function startHaproxy(
  to: string,
): Promise<{ readonly host: string; readonly program: RunningProgram }> {
  const file = join(await mkdtemp(join(tmpdir(), "haproxy-")), "haproxy.cfg");
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  await writeFile(
    file,
    `global
  nbthread 1
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend clients
  bind ${host}
  default_backend registry
backend registry
  server one ${to}
`,
  );
  const program = await startProgram("haproxy", ["-db", "-f", file]);
  await listens(port, program.output);
  return { host, program };
}
