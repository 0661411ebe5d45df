import type { Connector } from "../connector/connector.ts";
import { withoutBrackets } from "../connector/host-name.ts";
import type { Result } from "../connector/platform.ts";
import { registrableDomain } from "./address-guard.ts";

/** Token servers that are known to be under another domain than their registry, by the registry's host. */
const knownRealms: ReadonlyMap<string, string> = new Map([
  ["registry-1.docker.io", "auth.docker.io"],
  ["registry.gitlab.com", "gitlab.com"],
  ["nvcr.io", "authn.nvidia.com"],
]);

/**
 * Checks whether the connector's password may go to a token server. A registry that could send it anywhere would be all
 * that is needed to steal it (CVE-2026-33540, CVE-2026-48978 and others).
 * @param realm as the registry's challenge names it
 * @returns the URL of the token server, or why the password must not go there
 */
export function checkRealm(realm: string, connector: Connector): Result<URL> {
  const { address, allowedRealmHosts } = connector;
  const url = URL.parse(realm);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    return refuse("the registry names a token server that is not an http or https URL");
  }
  if (url.username !== "" || url.password !== "") {
    return refuse(`the registry names a token server (${url.host}) with a user in its URL`);
  }
  if (url.protocol === "http:" && address.scheme === "https") {
    return refuse(`the registry uses https, but its token server ${url.host} does not`);
  }
  const hostname = withoutBrackets(url.hostname);
  const isKnown = knownRealms.get(address.hostname) === hostname;
  if (isKnown || isSameDomain(hostname, address.hostname) || allowedRealmHosts.includes(hostname)) {
    return { ok: true, value: url };
  }
  return refuse(
    `the registry ${address.hostname} refers to the token server ${hostname}, which is in another domain; ` +
      `if that is right, add {name: allowedRealmHosts, value: "${hostname}"} to the connector's spec.params`,
  );
}

function isSameDomain(hostname: string, registry: string): boolean {
  const domain = registrableDomain(registry);
  return hostname === registry || (domain !== undefined && registrableDomain(hostname) === domain);
}

const refuse = (reason: string): Result<URL> => ({ ok: false, reason });
