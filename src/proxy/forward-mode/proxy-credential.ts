import type { IncomingMessage } from "node:http";
import {
  type ConnectorRef,
  isConnectorName,
  isNamespace,
  showRef,
} from "../../connector/connector-ref.ts";
import type { Identity, Result, TokenSender } from "../../connector/platform.ts";
import { attempt } from "../../error-code.ts";
import { type AdmissionOptions, senderOf } from "../admission.ts";
import { RegistryError } from "../registry-error.ts";
import { basicChallenge } from "../request/request-head.ts";

/** What a client sends in `Proxy-Authorization`. */
export interface ProxyCredential {
  /** The connectors that the client wants to use, in its order. */
  readonly connectors: readonly ConnectorRef[];
  readonly token: string;
  /** The client that has sent it. */
  readonly sender?: TokenSender;
}

/** No volume has more connectors. */
const maxConnectors = 64;
const credentialHint = "source the volume's .env, or use the URL in its http.proxy";

/**
 * Parses the value of `Proxy-Authorization: Basic <namespace>%2F<name>[,…]:<token>`. Some clients decode the user of a proxy's
 * URL before they send it (Go, curl), and others do not (older Java and Python): both forms are understood.
 */
export function parseProxyCredential(header: string | undefined): Result<ProxyCredential> {
  if (header === undefined) return refuse("this proxy requires the credential of a volume");
  const [, value = ""] = /^basic +([A-Za-z0-9+/_-]+=*) *$/i.exec(header) ?? [];
  const pair = Buffer.from(value, "base64").toString("utf8");
  const colon = pair.indexOf(":"); // RFC 7617, section 2: the first colon ends the user
  const token = decode(pair.slice(colon + 1));
  if (colon < 0 || token === "")
    return refuse("this proxy requires Basic authentication with a token as the password");
  const names = decode(pair.slice(0, colon)).split(",");
  const refs = names.flatMap(parseName);
  if (refs.length < names.length || names.length > maxConnectors) {
    return refuse(
      "the user name for this proxy must be <namespace>/<connector>[,<namespace>/<connector>]",
    );
  }
  const connectors = [...new Map(refs.map((ref) => [showRef(ref), ref])).values()];
  return { ok: true, value: { connectors, token } };
}

const refuse = (what: string): Result<never> => ({
  ok: false,
  reason: `${what}: ${credentialHint}`,
});

function parseName(text: string): readonly ConnectorRef[] {
  const [namespace = "", name = "", ...others] = text.trim().split("/");
  const isRef = isNamespace(namespace) && isConnectorName(name) && others.length === 0;
  return isRef ? [{ namespace, name }] : [];
}

/** Neither a name nor a token (RFC 6750, `b64token`) contains a percent sign, so decoding changes none that is not encoded. */
const decode = (text: string): string =>
  attempt(
    () => decodeURIComponent(text),
    () => "",
  );

/**
 * Reads the credential of a request.
 * @throws RegistryError 407 where there is none, or where it is malformed
 */
export function readProxyCredential(request: IncomingMessage): ProxyCredential {
  const credential = parseProxyCredential(request.headers["proxy-authorization"]);
  if (credential.ok) return { ...credential.value, sender: senderOf(request) };
  throw proxyAuthenticationRequired(credential.reason);
}

/**
 * Verifies the token of a credential.
 * @returns who holds it
 * @throws RegistryError 407 where the token is not valid; Unavailable
 */
export async function identify(
  { token, sender }: ProxyCredential,
  { verifyToken }: Pick<AdmissionOptions, "verifyToken">,
): Promise<Identity> {
  const identity = await verifyToken(token, sender);
  if (identity.ok) return identity.value;
  throw proxyAuthenticationRequired(identity.reason);
}

/** RFC 9110, section 15.5.8. */
const proxyAuthenticationRequired = (reason: string): RegistryError =>
  new RegistryError(407, "UNAUTHORIZED", reason, {
    headers: { "proxy-authenticate": basicChallenge },
  });
