import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningProgram, startProgram } from "../test/support/program.ts";
import type { Certificates } from "./certificates.ts";
import { freePort, listens } from "./free-port.ts";

export interface Nginx {
  /** `http://127.0.0.1:34567` */
  readonly http: string;
  readonly https: string;
  readonly program: RunningProgram;
}

export interface NginxConfiguration {
  /** Lines of its `server` block, which listens by HTTP and by TLS already. */
  readonly server: string;
  /** Lines beside it. */
  readonly besides?: string;
  /** Whether it logs every request, as it does unless told otherwise. */
  readonly accessLog: boolean;
}

/** Starts nginx as one single process on loopback. */
export async function startNginx(
  { server, besides = "", accessLog }: NginxConfiguration,
  { certificateFile, keyFile }: Certificates,
): Promise<Nginx> {
  const folder = await mkdtemp(join(tmpdir(), "nginx-"));
  const file = join(folder, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  const [http, https] = [await freePort(), await freePort()];
  await writeFile(
    file,
    `daemon off;
    master_process off;
    user root;
    pid ${folder}/nginx.pid;
    error_log stderr error;
    events { worker_connections 4096; }
    http {
      access_log ${accessLog ? `${folder}/access.log` : "off"};
      client_max_body_size 0;
      ssl_protocols TLSv1.2 TLSv1.3;
      ${temporary.join("\n")}
      ${besides}
      server {
        listen 127.0.0.1:${http};
        listen 127.0.0.1:${https} ssl;
        ssl_certificate ${certificateFile};
        ssl_certificate_key ${keyFile};
        ${server}
      }
    }\n`,
    { mode: 0o600 },
  );
  const program = await startProgram("nginx", ["-c", file, "-e", "stderr"]);
  await listens(https, program.output);
  return { http: `http://127.0.0.1:${http}`, https: `https://127.0.0.1:${https}`, program };
}
