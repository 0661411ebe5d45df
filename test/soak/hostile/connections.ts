import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import type { Target } from "./attacker-process.ts";

/** Counts what the attacker does and sees. */
export type Count = (what: string) => void;

/** Connects at once again where a connection ends, so that there are always as many. */
export function keepConnected(
  { host }: Pick<Target, "host">,
  connections: number,
  use: (socket: Socket) => void,
  count: Count,
): void {
  const [hostname, port] = host.split(":");
  const open = (): void => {
    const socket = connect(Number(port), hostname);
    socket.on("error", () => {}); // its end follows
    socket.once("connect", () => {
      count("connections");
      use(socket);
    });
    socket.once("close", () => setImmediate(open));
  };
  for (let number = 0; number < connections; number += 1) open();
}

/** Writes requests one after the other, as fast as the connection takes them, and throws the responses away. */
export function flood(next: () => string, count: Count): (socket: Socket) => void {
  return (socket) => {
    const write = (): void => {
      if (socket.destroyed) return;
      let takesMore = true;
      // What is written at once is bounded, so that responses are read in between.
      for (let number = 0; number < 100 && takesMore; number += 1) {
        takesMore = socket.write(next());
        count("requests");
      }
      if (takesMore) setImmediate(write);
      else socket.once("drain", write);
    };
    socket.resume().on("data", () => count("pieces of responses"));
    write();
  };
}

/** Writes one request, and the next one when something has come back. */
export function oneAtATime(next: () => string, count: Count): (socket: Socket) => void {
  return (socket) => {
    socket.on("data", () => {
      count("responses");
      socket.write(next());
    });
    socket.write(next());
  };
}

/** A request of a tenant; its response is read to the end. */
export type TenantRequest = (
  method: string,
  path: string,
  body?: string,
) => Promise<IncomingMessage | undefined>;

/** A tenant's client with so many connections. @returns undefined where there was no response */
export function tenantClient(
  { host, token }: Pick<Target, "host" | "token">,
  connections: number,
  count: Count,
): TenantRequest {
  const [hostname, port] = host.split(":");
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  return (method, path, body) =>
    new Promise((resolve) => {
      const sent = httpRequest({
        agent,
        hostname,
        port,
        method,
        path,
        headers: { authorization: `Bearer ${token}` },
      });
      sent.on("error", () => {
        count("no response");
        resolve(undefined);
      });
      sent.on("response", (response) => {
        count(`status ${response.statusCode}`);
        response.resume().on("close", () => resolve(response));
      });
      sent.end(body);
    });
}

/** Does something again and again, so many times at once. */
export function forEver(times: number, act: () => Promise<unknown>): void {
  const next = (): void => void act().then(() => setImmediate(next));
  for (let number = 0; number < times; number += 1) next();
}
