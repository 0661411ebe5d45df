import { isIP, isIPv6 } from "node:net";
import type { Problem } from "../connector/problem.ts";
import { problem } from "./command-line.ts";

/** Where the proxy listens. */
export interface ListenSetting {
  readonly scheme: "http" | "https";
  /** A host name or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
}

const listenPattern = /^(?:(https?):\/\/)?(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/;

/**
 * Reads `[http://|https://]HOST:PORT`, https unless told; one of each scheme at most.
 * @param option the name under which problems show
 */
export function listenSettings(
  option: string,
  texts: readonly string[],
  problems: Problem[],
): readonly ListenSetting[] {
  const settings = texts.flatMap((text) => {
    const [, scheme = "https", ipv6, name, port] = listenPattern.exec(text) ?? [];
    const host = ipv6 ?? name;
    if (host === undefined || Number(port) > 65535 || (ipv6 !== undefined && !isIPv6(ipv6))) {
      problems.push(problem(option, text, "[http://|https://]HOST:PORT"));
      return [];
    }
    if (isUnspecified(host)) {
      const wanted = "an address that tools can connect to, since every file of a volume names it";
      problems.push(problem(option, text, wanted));
    }
    return [{ scheme: scheme === "http" ? "http" : "https", host, port: Number(port) } as const];
  });
  if (new Set(settings.map(({ scheme }) => scheme)).size < settings.length) {
    problems.push(problem(option, texts, "one http and one https address at most"));
  }
  return settings;
}

/** `0.0.0.0` and `::` stand for every address of the machine, and so for none that a tool could connect to. */
const isUnspecified = (host: string): boolean => isIP(host) !== 0 && /^[0.:]+$/.test(host);
