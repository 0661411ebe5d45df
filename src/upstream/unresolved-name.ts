/** What can be said of names whose addresses nobody here knows, since a company's proxy resolves them. */
import { parse } from "tldts";

/** Names by which a machine knows itself, or a cloud's metadata service, wherever they are resolved. */
const forbiddenName =
  /^(localhost|.+\.localhost|localhost\.localdomain|ip6-localhost|ip6-loopback|metadata|.*metadata\.google\.internal|instance-data(\..+)?)$/;

/** Why a name may not be resolved by a company's proxy, whoever names it; undefined where it may. */
export const forbiddenNameRefusal = (hostname: string): string | undefined =>
  forbiddenName.test(hostname)
    ? `host ${hostname} is unknown to DNS here, and by its name one that is never connected to`
    : undefined;

/** Whether a name may be one of the public DNS, by its public suffix (publicsuffix.org). */
export function isPublicName(hostname: string): boolean {
  const { domain, isIcann, isPrivate } = parse(hostname, { allowPrivateDomains: true });
  return domain !== null && (isIcann === true || isPrivate === true);
}
