import type { Connector } from "../connector/connector.ts";
import { withoutBrackets } from "../connector/host-name.ts";
import type { Result } from "../connector/platform.ts";
import { registrableDomain } from "./address-guard.ts";

/** Token servers that are known to be under another domain than their registry, by the registry's host. */
const knownRealms: readonly (readonly [registry: RegExp, realmHost: string])[] = [
  [/^registry-1\.docker\.io$/, "auth.docker.io"],
  [/^registry\.gitlab\.com$/, "gitlab.com"],
  [/^nvcr\.io$/, "authn.nvidia.com"],
  [/^rg\.[a-z0-9-]+\.scw\.cloud$/, "api.scaleway.com"], // Scaleway, one registry for each region
];

/** Realms of registries have some 100 characters. What is kept of a login has them in its keys. */
const maxRealmLength = 4096;

/**
 * Checks whether the connector's password may go to a token server. A registry that could send it anywhere would be all
 * that is needed to steal it (CVE-2026-33540, CVE-2026-48978 and others). Where there is no password, an anonymous token
 * may come from any domain; which addresses may be dialled, the address guard decides in either case.
 * @param realm as the registry's challenge names it
 * @param hasCredential whether the connector has a credential that would be sent there
 * @returns the URL of the token server, or why it must not be asked
 */
export function checkRealm(
  realm: string,
  connector: Connector,
  hasCredential: boolean,
): Result<URL> {
  const { address, allowedRealmHosts } = connector;
  if (realm.length > maxRealmLength) {
    return refuse(
      `the registry names a token server by a URL of ${realm.length} characters; ${maxRealmLength} are the most`,
    );
  }
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
  const { identity } = connector;
  if (hasCredential && identity?.method === "oidcAuth" && url.origin !== address.origin) {
    return refuse(
      `the registry ${address.origin} refers to the token server ${url.origin}; ` +
        `a login by ${identity.method} goes to the registry's own origin alone`,
    );
  }
  const hostname = withoutBrackets(url.hostname);
  const isKnown = knownRealms.some(
    ([registry, realmHost]) => registry.test(address.hostname) && realmHost === hostname,
  );
  const isTrusted =
    isKnown || isSameDomain(hostname, address.hostname) || allowedRealmHosts.includes(hostname);
  if (isTrusted || !hasCredential) return { ok: true, value: url };
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
