import { X509Certificate } from "node:crypto";
import type { Upstream } from "./upstream.ts";
import { UpstreamError } from "./upstream-error.ts";

/**
 * Says of a connection that failed that the connector's client certificate has expired, since many servers just close the
 * connection then.
 * @param now milliseconds since 1970
 * @returns the error itself where the certificate has not expired, or there is none, or the error says what is wrong
 */
export function withExpiry<Failure>(
  error: Failure,
  { secrets }: Upstream,
  now: number,
): Failure | UpstreamError {
  const { clientCertificate } = secrets;
  if (clientCertificate === undefined || !(error instanceof UpstreamError)) return error;
  if (error.fault !== "ConnectionFailed" || error.isConcealed) return error;
  const { validTo } = new X509Certificate(clientCertificate.certificate);
  const expiredAt = Date.parse(validTo);
  if (Number.isNaN(expiredAt) || now < expiredAt) return error;
  const when = new Date(expiredAt).toISOString();
  return new UpstreamError(
    "CertificateInvalid",
    `${error.message}; the client certificate has expired at ${when}`,
    {
      cause: error.cause,
      detail: "renew the certificate in the Secret of the connector's spec.params clientCertSecret",
    },
  );
}
