import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthority, createLeafIssuer } from "../src/certificate-authority.ts";

/** Certificates as the connector makes them itself, for everybody else, so that all do the same work. */
export interface Certificates {
  /** PEM of the authority. */
  readonly authority: string;
  readonly authorityFile: string;
  /** For 127.0.0.1. */
  readonly certificateFile: string;
  readonly keyFile: string;
}

export async function makeCertificates(): Promise<Certificates> {
  const now = new Date();
  const authority = await createAuthority("bench", now);
  const leaf = await (await createLeafIssuer(authority))("127.0.0.1", now);
  const paths = {
    authorityFile: join(tmpdir(), "authority.pem"),
    certificateFile: join(tmpdir(), "server.pem"),
    keyFile: join(tmpdir(), "server.key"),
  };
  await writeFile(paths.authorityFile, authority.certificate);
  await writeFile(paths.certificateFile, leaf.certificate);
  await writeFile(paths.keyFile, leaf.privateKey, { mode: 0o600 });
  return { authority: authority.certificate, ...paths };
}
