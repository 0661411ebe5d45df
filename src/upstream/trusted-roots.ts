import { getCACertificates } from "node:tls";

/** Node's own roots and the system's, PEM, each text once. */
export const trustedRoots = (): ReadonlySet<string> =>
  new Set([...getCACertificates("default"), ...getCACertificates("system")]);
