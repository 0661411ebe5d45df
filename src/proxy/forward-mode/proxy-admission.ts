import type { IncomingMessage } from "node:http";
import type { Identity } from "../../connector/surroundings.ts";
import type { AdmissionOptions } from "../admission.ts";
import { RegistryError } from "../registry-error.ts";
import { type ProxyCredential, parseProxyCredential } from "./proxy-credential.ts";

/** @throws RegistryError 407 */
export function readCredential({ headers }: IncomingMessage): ProxyCredential {
  const credential = parseProxyCredential(headers["proxy-authorization"]);
  if (credential.ok) return credential.value;
  throw wantsCredential(credential.reason);
}

/**
 * Who holds the credential's token?
 * @throws RegistryError 407; Unavailable
 */
export async function identify(
  { token }: ProxyCredential,
  { verifyToken }: Pick<AdmissionOptions, "verifyToken">,
): Promise<Identity> {
  const answer = await verifyToken(token);
  if (answer.ok) return answer.value;
  throw wantsCredential(answer.reason);
}

/** RFC 9110, section 15.5.8. */
const wantsCredential = (reason: string): RegistryError =>
  new RegistryError(407, "UNAUTHORIZED", reason, {
    headers: { "proxy-authenticate": 'Basic realm="connectors-proxy"' },
  });
