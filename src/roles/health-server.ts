import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";

/** What a health server reports. */
export interface HealthOptions {
  readonly port: number;
  /** Returns why the role is not ready, in a sentence; undefined where it is ready. */
  readonly notReady: () => string | undefined;
  /** Returns the Content-Type and the text of `/metrics`. */
  readonly metrics: () => Promise<readonly [type: string, text: string]>;
}

/** A health server that listens. */
export interface HealthServer {
  stop(): Promise<void>;
}

/**
 * Serves `/healthz` (200 while the process responds), `/readyz` (200 while the role is ready, else 503 and why not) and
 * `/metrics` (for Prometheus) by plain HTTP.
 * @throws Error where the port can't be listened on
 */
export async function serveHealth({
  port,
  notReady,
  metrics,
}: HealthOptions): Promise<HealthServer> {
  const respond = async (path: string, response: ServerResponse): Promise<void> => {
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
    respond((request.url ?? "").split("?", 1)[0] ?? "", response).catch(() => response.destroy());
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
