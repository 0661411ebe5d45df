import { once } from "node:events";
import { connect } from "node:net";
import { Duplex } from "node:stream";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { openRaw, type RawConnection } from "../../support/raw-request.ts";
import { basicAuth } from "../test-client.ts";
import type { TestProxy } from "../test-proxy.ts";

/** `Proxy-Authorization: Basic team-a/harbor:<token>` */
export const proxyAuth = (token: string, ...names: readonly string[]): string =>
  basicAuth(token, names.map((name) => `team-a/${name}`).join(","));

export interface ConnectOptions {
  /** `harbor.test:443` */
  readonly to: string;
  /** The whole header; left out where it is empty. */
  readonly credential: string;
  readonly scheme?: "http" | "https";
  /** Sent with the CONNECT, before anything is answered. */
  readonly early?: string | Buffer;
}

const portOf = (proxy: TestProxy, scheme: "http" | "https"): number =>
  Number(proxy[scheme].split(":")[1]);

export const connectHead = ({
  to,
  credential,
}: Pick<ConnectOptions, "to" | "credential">): string =>
  `CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\n` +
  `${credential === "" ? "" : `Proxy-Authorization: ${credential}\r\n`}\r\n`;

/** Asks for a tunnel, and waits for the head of the answer. */
export async function askConnect(
  proxy: TestProxy,
  { scheme = "http", early = "", ...options }: ConnectOptions,
): Promise<RawConnection & { readonly status: number }> {
  const ca = scheme === "https" ? { ca: proxy.surroundings.authority.certificate } : {};
  const connection = await openRaw({ port: portOf(proxy, scheme), ...ca });
  connection.send(Buffer.concat([Buffer.from(connectHead(options)), Buffer.from(early)]));
  const head = await connection.waitFor(/\r\n\r\n/);
  return { ...connection, status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1]) };
}

/** TLS inside a CONNECT, with a first message that does not wait for the proxy's answer where that is wanted. */
export async function connectTlsInside(
  proxy: TestProxy,
  to: Omit<ConnectOptions, "early">,
  options: ConnectionOptions & { readonly eager?: boolean } = {},
): Promise<TLSSocket> {
  const socket = connect(portOf(proxy, "http"), "127.0.0.1");
  await once(socket, "connect");
  const head = connectHead(to);
  let answer = "";
  if (!options.eager) {
    socket.write(head);
    while (!answer.endsWith("\r\n\r\n")) {
      const [chunk] = await once(socket, "data");
      answer += chunk;
    }
  }
  let isFirst = options.eager === true;
  const inside = new Duplex({
    read: () => void socket.resume(),
    write(chunk: Buffer, _encoding, done) {
      socket.write(isFirst ? Buffer.concat([Buffer.from(head), chunk]) : chunk, done);
      isFirst = false;
    },
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (chunk: Buffer) => {
    const ends = answer.endsWith("\r\n\r\n") ? 0 : chunk.indexOf("\r\n\r\n") + 4;
    answer += chunk.subarray(0, ends).toString("latin1");
    if (ends < chunk.length) inside.push(chunk.subarray(ends));
  });
  const cut = Object.assign(new Error("the proxy has closed the connection"), { code: "CLOSED" });
  socket.on("end", () => inside.push(null)).on("error", () => undefined);
  socket.on("close", () => {
    if (!socket.readableEnded) inside.destroy(cut);
    else if (inside.readableEnded) inside.destroy();
    else inside.once("end", () => inside.destroy());
  });
  const { hostname } = new URL(`https://${to.to}`);
  const ca = proxy.surroundings.authority.certificate;
  const secure = connectTls({ socket: inside, ca, servername: hostname, ...options });
  try {
    await once(secure, "secureConnect");
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return secure;
}
