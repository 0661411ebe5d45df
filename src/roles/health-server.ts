import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";

export interface HealthOptions {
  readonly port: number;
  /** Why the role is not ready, undefined where it is. */
  readonly notReady: () => string | undefined;
  /** The Content-Type and the text of `/metrics`. */
  readonly metrics: () => Promise<readonly [type: string, text: string]>;
}

export interface HealthServer {
  stop(): Promise<void>;
}

/** `/healthz`: the process answers. `/readyz`: the role does its work. `/metrics`: for Prometheus. */
export async function serveHealth({
  port,
  notReady,
  metrics,
}: HealthOptions): Promise<HealthServer> {
  const answer = async (path: string, response: ServerResponse): Promise<void> => {
    const plain = { "content-type": "text/plain; charset=utf-8" };
    if (path === "/healthz") response.writeHead(200, plain).end("ok\n");
    else if (path === "/readyz") {
      const reason = notReady();
      response.writeHead(reason === undefined ? 200 : 503, plain).end(`${reason ?? "ok"}\n`);
    } else if (path === "/metrics") {
      const [type, text] = await metrics();
      response.writeHead(200, { "content-type": type }).end(text);
    } else
      response.writeHead(404, plain).end("the known paths are /healthz, /readyz and /metrics\n");
  };
  const server = createServer((request, response) => {
    answer((request.url ?? "").split("?", 1)[0] ?? "", response).catch(() => response.destroy());
  });
  server.listen(port);
  await once(server, "listening");
  return {
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
