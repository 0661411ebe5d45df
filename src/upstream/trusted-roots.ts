import { getCACertificates } from "node:tls";

// A file of its own, which imports nothing but Node: the csi role reads the roots, too, and must not load an HTTP client for it.

/** The certificates of the authorities that Node and the system trust, in PEM, each text once. */
export const trustedRoots = (): ReadonlySet<string> =>
  new Set([...getCACertificates("default"), ...getCACertificates("system")]);
