/** Ways by a company's HTTP proxy: connections to it, and the tunnels that it opens (RFC 9110, section 9.3.6). */
import { isIP, isIPv6, connect as netConnect, type Socket } from "node:net";
import { type SecureContext, connect as tlsConnect } from "node:tls";
import { ConnectionError } from "./connection-error.ts";
import { HeadReader } from "./head-reader.ts";
import type { ResponseHead } from "./http-exchange.ts";
import { InvalidResponse } from "./message-head.ts";
import type { OnRead } from "./read-connection.ts";

/** A company's HTTP proxy, by which hosts are reached. */
export interface EgressProxy {
  /** For messages, without its login: `http://proxy.corp:3128`. */
  readonly name: string;
  /** An IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  /** What is trusted where the proxy itself speaks TLS; undefined where it does not. */
  readonly secureContext: SecureContext | undefined;
  readonly login: EgressLogin;
}

/** The login at a company's proxy. */
export interface EgressLogin {
  /**
   * The value of Proxy-Authorization for a new connection; undefined where there is no login. What becomes of it has to be
   * reported.
   * @throws EgressError while a login that was refused is not sent again
   */
  take(): Promise<string | undefined>;
  /** The same for another request on a connection that is there already. */
  current(): string | undefined;
  /** Takes the proxy's word on a login; undefined where it has not said anything. */
  report(authorization: string | undefined, isAccepted: boolean | undefined): void;
}

/** The way to one host by a company's proxy. */
export interface EgressRoute {
  readonly proxy: EgressProxy;
  /** Judges the host by its addresses, or by its name. @throws the reason why it may not be connected to */
  readonly admit: () => Promise<void>;
}

/**
 * Why there is no way by a company's proxy.
 * - EGRESS_UNREACHABLE: the proxy itself can't be reached; the cause says why
 * - EGRESS_SILENT: it does not answer CONNECT in time
 * - EGRESS_LOGIN: it wants another login than it was sent, or any
 * - EGRESS_REFUSED: it opens no tunnel to this host
 * - EGRESS_INVALID: its answer to CONNECT is none of HTTP
 * - EGRESS_UNKNOWN_NAME: the host can't be judged, since DNS has no address of it
 */
export type EgressErrorCode =
  | "EGRESS_UNREACHABLE"
  | "EGRESS_SILENT"
  | "EGRESS_LOGIN"
  | "EGRESS_REFUSED"
  | "EGRESS_INVALID"
  | "EGRESS_UNKNOWN_NAME";

/** There is no way by a company's proxy. The message names the proxy, and never its login. */
export class EgressError extends Error {
  override readonly name = "EgressError";
  readonly code: EgressErrorCode;
  /** What to do about it. */
  readonly advice: string;

  constructor(code: EgressErrorCode, message: string, advice: string, options: ErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.advice = advice;
  }
}

/** A host and a port. */
export interface HostAndPort {
  /** An IPv6 address without brackets. */
  readonly hostname: string;
  readonly port: number;
}

/** How long a step may take, and what ends it sooner. */
export interface DialOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** How the connection to the proxy itself is made. */
export interface ProxyConnectionOptions extends DialOptions {
  /** Memory that the socket reads into; without it, the socket is a stream. */
  readonly onread?: OnRead | undefined;
  /** Whether each side may end before the other; false by default. */
  readonly allowHalfOpen?: boolean;
}

/**
 * Opens a tunnel to a host.
 * @returns the connection to the proxy, on which the next byte to be read is the host's first
 * @throws EgressError; the reason for which the host may not be connected to; the signal's reason
 */
export async function openTunnel(
  { proxy, admit }: EgressRoute,
  { hostname, port }: HostAndPort,
  options: Omit<ProxyConnectionOptions, "onread">,
): Promise<Socket> {
  const { timeoutMs, signal } = options;
  await admit();
  const authorization = await proxy.login.take();
  let isAccepted: boolean | undefined;
  try {
    signal?.throwIfAborted();
    const begin = performance.now();
    const socket = await connectToProxy(proxy, options);
    const target = `${isIPv6(hostname) ? `[${hostname}]` : hostname}:${port}`;
    const remainingMs = Math.max(1, timeoutMs - (performance.now() - begin));
    socket.write(connectRequest(target, authorization), "latin1");
    const head = await readHead(socket, proxy, target, { timeoutMs: remainingMs, signal });
    if (head.status >= 200 && head.status <= 299) {
      isAccepted = true;
      return socket;
    }
    socket.destroy();
    isAccepted = head.status !== 407;
    throw isAccepted
      ? refusal(proxy, target, head.status)
      : loginRefusal(proxy, authorization, head);
  } finally {
    proxy.login.report(authorization, isAccepted);
  }
}

/**
 * Connects to the proxy itself: for a tunnel, or for requests in absolute form (RFC 9112, section 3.2.2).
 * @throws EgressError; the signal's reason
 */
export async function connectToProxy(
  { name, host, port, secureContext }: EgressProxy,
  { timeoutMs, signal, onread, allowHalfOpen = false }: ProxyConnectionOptions,
): Promise<Socket> {
  const options = { host, port, allowHalfOpen, ...socketOptions(onread) };
  const socket =
    secureContext === undefined
      ? netConnect(options)
      : tlsConnect({
          ...options,
          secureContext,
          ...(isIP(host) === 0 ? { servername: host } : {}),
          ALPNProtocols: ["http/1.1"],
        });
  try {
    const event = secureContext === undefined ? "connect" : "secureConnect";
    return await connected(socket, event, { timeoutMs, signal });
  } catch (cause) {
    signal?.throwIfAborted();
    const message = `the egress proxy ${name} can't be reached`;
    throw new EgressError("EGRESS_UNREACHABLE", message, unreachableAdvice, { cause });
  }
}

/** What all connections of this client have in common. */
export const socketOptions = (onread: OnRead | undefined): SocketOptions => ({
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
  ...(onread === undefined ? {} : { onread }),
});

interface SocketOptions {
  readonly noDelay: boolean;
  readonly keepAlive: boolean;
  readonly keepAliveInitialDelay: number;
  readonly onread?: {
    readonly buffer: OnRead["buffer"];
    readonly callback: OnRead["callback"];
  };
}

/**
 * Waits until a socket is connected, and ends it where that fails.
 * @throws the socket's error; ConnectionError after the time; the signal's reason
 */
export const connected = <T extends Socket>(
  socket: T,
  event: "connect" | "secureConnect",
  options: DialOptions,
): Promise<T> =>
  untilSettled(socket, options, (resolve) => {
    const onConnected = (): void => resolve(socket);
    socket.once(event, onConnected);
    return () => socket.off(event, onConnected);
  });

/**
 * Waits for something of a socket, and ends the socket where that fails.
 * @param listen begins to wait. @returns what ends that
 */
function untilSettled<T>(
  socket: Socket,
  { timeoutMs, signal }: DialOptions,
  listen: (resolve: (value: T) => void, reject: (error: Error) => void) => () => unknown,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      socket.off("error", fail).off("close", onClose);
      stop();
    };
    const fail = (error: Error): void => {
      end();
      socket.on("error", () => undefined).destroy();
      reject(error);
    };
    const onClose = (): void => fail(new ConnectionError("CONNECTION_CLOSED"));
    const onAbort = (): void => fail(signal?.reason);
    const timer = setTimeout(() => fail(new ConnectionError("CONNECT_TIMEOUT")), timeoutMs);
    signal?.addEventListener("abort", onAbort, { once: true });
    socket.once("error", fail).once("close", onClose);
    const stop = listen((value) => {
      end();
      resolve(value);
    }, fail);
    if (signal?.aborted) onAbort();
  });
}

/** Of the head of an answer to CONNECT. */
const maxHeadBytes = 16 * 1024;

function connectRequest(target: string, authorization: string | undefined): string {
  const login = authorization === undefined ? "" : `proxy-authorization: ${authorization}\r\n`;
  return `CONNECT ${target} HTTP/1.1\r\nhost: ${target}\r\n${login}\r\n`;
}

/**
 * Reads the head of the answer to CONNECT. What came behind it is read again by whoever reads from the socket.
 * @throws EgressError; the signal's reason
 */
async function readHead(
  socket: Socket,
  { name }: EgressProxy,
  target: string,
  options: DialOptions,
): Promise<ResponseHead> {
  const reader = new HeadReader(maxHeadBytes);
  try {
    return await untilSettled<ResponseHead>(socket, options, (resolve, reject) => {
      const onData = (bytes: Buffer): void => {
        const read = attempt(() => reader.read(bytes, "CONNECT"), reject);
        if (read === undefined) return;
        socket.pause();
        if (read.rest.length > 0) socket.unshift(read.rest);
        resolve(read.head);
      };
      const onEnd = (): void => reject(new ConnectionError("CONNECTION_CLOSED"));
      socket.on("data", onData).once("end", onEnd);
      return () => socket.off("data", onData).off("end", onEnd);
    });
  } catch (cause) {
    options.signal?.throwIfAborted();
    throw answerError(name, target, cause);
  }
}

/** @returns undefined where the action throws, and `otherwise` got the error */
function attempt<T>(action: () => T, otherwise: (error: Error) => void): T | undefined {
  try {
    return action();
  } catch (error) {
    otherwise(error instanceof Error ? error : new Error(String(error)));
    return undefined;
  }
}

function answerError(name: string, target: string, cause: unknown): EgressError {
  const isSilent = cause instanceof ConnectionError && cause.code === "CONNECT_TIMEOUT";
  if (isSilent) {
    const message = `the egress proxy ${name} does not answer CONNECT ${target}`;
    return new EgressError("EGRESS_SILENT", message, refusalAdvice, { cause });
  }
  const isInvalid = cause instanceof InvalidResponse || cause instanceof ConnectionError;
  const why = isInvalid ? cause.message : "it closed the connection";
  const message = `the egress proxy ${name} has answered CONNECT ${target} with no HTTP response: ${why}`;
  return new EgressError("EGRESS_INVALID", message, unreachableAdvice, { cause });
}

function refusal({ name }: EgressProxy, target: string, status: number): EgressError {
  const message = `the egress proxy ${name} answered ${status} to CONNECT ${target}`;
  return new EgressError("EGRESS_REFUSED", message, refusalAdvice);
}

/**
 * Takes the head of a response to a request in absolute form. A 407 is the proxy's own; all else may be the host's.
 * @param authorization the login that was sent
 * @throws EgressError for a 407
 */
export function checkProxyAnswer(
  proxy: EgressProxy,
  authorization: string | undefined,
  head: ResponseHead,
): void {
  const isAccepted = head.status !== 407;
  proxy.login.report(authorization, isAccepted);
  if (!isAccepted) throw loginRefusal(proxy, authorization, head);
}

function loginRefusal(
  { name }: EgressProxy,
  authorization: string | undefined,
  { headers }: Pick<ResponseHead, "headers">,
): EgressError {
  const challenges = [headers["proxy-authenticate"] ?? []].flat().join(", ");
  const schemes = [...challenges.matchAll(schemeOfChallenge)].map(([, scheme = ""]) => scheme);
  if (schemes.length > 0 && !schemes.some((scheme) => scheme.toLowerCase() === "basic")) {
    const message = `the egress proxy ${name} wants a login by ${schemes.join(" or ")} (407)`;
    return new EgressError("EGRESS_LOGIN", message, basicAdvice);
  }
  return authorization === undefined
    ? new EgressError("EGRESS_LOGIN", `the egress proxy ${name} wants a login (407)`, loginAdvice)
    : new EgressError(
        "EGRESS_LOGIN",
        `the egress proxy ${name} refused its login (407)`,
        loginAdvice,
      );
}

/** The schemes that proxies offer (IANA, "HTTP Authentication Schemes"), at the beginning of a challenge. */
const schemeOfChallenge = /(?:^|,)\s*(Basic|Digest|Negotiate|NTLM|Kerberos|Bearer)\b/gi;

const unreachableAdvice =
  "EGRESS_PROXY (--egress-proxy of standalone) names it: check its address and port, and whether it accepts connections from here";
const refusalAdvice =
  "the company's proxy decides that: have its administrators allow this host and port, or name the host in EGRESS_NO_PROXY (--egress-no-proxy) where it can be reached directly";
const loginAdvice =
  "check the user and the password in the Secret connectors-egress-login (the file of --egress-login)";
const basicAdvice =
  "only Basic is sent here: have its administrators offer that, or allow this address without a login";
