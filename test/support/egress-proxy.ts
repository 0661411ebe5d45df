import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Stoppable } from "./cleanup.ts";

/** What has come to a company's proxy. */
export interface EgressRequest {
  readonly method: string;
  /** `registry.example.com:443` of a CONNECT, else the request target as it came. */
  readonly target: string;
  /** The whole header. */
  readonly login: string | undefined;
  readonly status: number;
}

/** A company's HTTP proxy on loopback, as squid is one. Every host that it is asked for is at 127.0.0.1. */
export interface EgressTestProxy extends Stoppable {
  readonly port: number;
  /** Everything that came, in order. */
  readonly requests: EgressRequest[];
  /** `user:password`; undefined where anybody may come. */
  login: string | undefined;
  /** What it offers to whoever has no login. */
  challenge: string;
  /** Targets that it refuses. */
  readonly refused: Set<string>;
  /** Milliseconds before it answers CONNECT. */
  delayMs: number;
  /** What it answers to CONNECT in place of anything else. */
  answer: string | undefined;
  /** Bytes that have passed through tunnels and in bodies of requests, to hosts. */
  readonly sentBytes: () => number;
  /** Connections of clients that are open. */
  readonly open: Set<Socket>;
}

export interface EgressTestProxyOptions {
  /** Its own TLS. */
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly port?: number;
}

/** Starts one on a free port. */
export async function startEgressProxy({
  tls,
  port = 0,
}: EgressTestProxyOptions = {}): Promise<EgressTestProxy> {
  const open = new Set<Socket>();
  const tunnels = new Set<Socket>();
  let sentBytes = 0;
  const state: Omit<EgressTestProxy, "port"> = {
    requests: [],
    login: undefined,
    challenge: 'Basic realm="company"',
    refused: new Set(),
    delayMs: 0,
    answer: undefined,
    sentBytes: () => sentBytes,
    open,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
        for (const socket of [...open, ...tunnels]) socket.destroy();
      }),
  };
  /** The status for a request: 407, 403, or 200 where it may go on. */
  const judge = ({ method = "", url = "", headers }: IncomingMessage): number => {
    const login = headers["proxy-authorization"];
    const wanted = state.login && `Basic ${Buffer.from(state.login).toString("base64")}`;
    const status =
      wanted !== undefined && login !== wanted ? 407 : state.refused.has(url) ? 403 : 200;
    state.requests.push({ method, target: url, login, status });
    return status;
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const status = judge(request);
    const { method, url = "", headers } = request;
    if (status !== 200 || !url.startsWith("http://")) {
      const challenge = status === 407 ? { "proxy-authenticate": state.challenge } : {};
      response.writeHead(status === 200 ? 400 : status, challenge).end("the company's own page");
      return;
    }
    const target = new URL(url);
    const passed = { ...headers };
    delete passed["proxy-authorization"];
    const sent = httpRequest({
      host: "127.0.0.1",
      port: target.port || 80,
      method,
      path: target.pathname + target.search,
      headers: passed,
    });
    sent.once("response", (received) => {
      response.writeHead(received.statusCode ?? 502, received.rawHeaders);
      received.pipe(response);
    });
    sent.on("error", () => response.destroy());
    request.on("data", (chunk: Buffer) => {
      sentBytes += chunk.length;
    });
    request.pipe(sent);
  };
  const onConnect = async (
    request: IncomingMessage,
    client: Duplex,
    head: Buffer,
  ): Promise<void> => {
    client.on("error", () => undefined);
    const status = judge(request);
    if (state.delayMs > 0) {
      client.once("end", () => client.end()).resume(); // or else nobody hears that the client has gone
      await sleep(state.delayMs, undefined, { ref: false });
    }
    if (state.answer !== undefined) {
      client.write(state.answer);
      return;
    }
    if (status !== 200) {
      const challenge = status === 407 ? `Proxy-Authenticate: ${state.challenge}\r\n` : "";
      client.end(`HTTP/1.1 ${status} No\r\n${challenge}Content-Length: 3\r\n\r\nno\n`);
      return;
    }
    const [, port] = /:(\d+)$/.exec(request.url ?? "") ?? [];
    const host = connect({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true });
    tunnels.add(host);
    host.once("close", () => tunnels.delete(host));
    host.on("error", () => client.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"));
    host.once("connect", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      host.write(head);
      client.on("data", (chunk: Buffer) => {
        sentBytes += chunk.length;
      });
      client.pipe(host).pipe(client);
    });
    client.once("close", () => host.destroy());
  };
  const settings = { requestTimeout: 0, maxHeaderSize: 65_536 };
  const server: Server = tls
    ? createTlsServer({ ...settings, ...tls }, onRequest)
    : createServer(settings, onRequest);
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket)).on("error", () => undefined);
  });
  server.on("connect", (request, client, head) => void onConnect(request, client, head));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", resolve);
  });
  return Object.assign(state, { port: (server.address() as AddressInfo).port });
}
