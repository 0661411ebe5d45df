import { hostnameIn, withBrackets } from "../../connector/host-name.ts";

/** Where a request of forward mode is to go. */
export interface ForwardTarget {
  /** Scheme, host and port as URLs have them: `https://harbor.example.com:8443`. */
  readonly origin: string;
  /** A name in lower case, or an IP address without brackets. */
  readonly hostname: string;
  readonly port: number;
  /** Path and query as they came; empty for CONNECT. */
  readonly path: string;
}

const defaultPorts = { http: 80, https: 443 } as const;

/** Parses the target of a CONNECT, `host:port` (RFC 9110, section 9.3.6); undefined for anything else. */
export const parseConnectTarget = (text: string): ForwardTarget | undefined =>
  /:\d+$/.test(text) ? parseAuthority("https", text, "") : undefined;

/** Parses an absolute target, `http://host[:port]/path` (RFC 9112, section 3.2.2); undefined for anything else. */
export function parseAbsoluteTarget(text: string): ForwardTarget | undefined {
  const [, authority = "", path = ""] = /^http:\/\/([^/?#]+)([/?][^#]*)?$/i.exec(text) ?? [];
  return parseAuthority("http", authority, path.startsWith("/") ? path : `/${path}`);
}

/** Whether a Host header names the same host and port as a target of that scheme. */
export const isHostOf = (scheme: "http" | "https", host: string, target: ForwardTarget): boolean =>
  parseAuthority(scheme, host, "")?.origin === target.origin;

function parseAuthority(
  scheme: "http" | "https",
  text: string,
  path: string,
): ForwardTarget | undefined {
  const [, host = "", digits] =
    /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(text.toLowerCase()) ?? [];
  const hostname = hostnameIn(host);
  const port = digits === undefined ? defaultPorts[scheme] : Number(digits);
  if (hostname === undefined || port === 0 || port > 65_535) return undefined;
  const origin = `${scheme}://${withBrackets(hostname)}${port === defaultPorts[scheme] ? "" : `:${port}`}`;
  return { origin, hostname, port, path };
}
