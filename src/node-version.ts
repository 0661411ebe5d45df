/** What the list of the system's authorities (`getCACertificates` of node:tls) needs. */
const oldest = { major: 22, minor: 19 };

/**
 * What to say where the program can't run on a version of Node.js; undefined where it can.
 * @param version `process.versions.node`: `20.19.2`
 */
export function nodeTooOld(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split(".").map((part) => Number.parseInt(part, 10));
  if (major > oldest.major || (major === oldest.major && minor >= oldest.minor)) return undefined;
  return (
    `found Node.js ${version}, wanted ${oldest.major}.${oldest.minor} or newer: install one, or use ` +
    `bin/oci-connector of a clone after "npm ci", which brings Node.js 24`
  );
}
