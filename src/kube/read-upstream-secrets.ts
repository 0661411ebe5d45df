import { LRUCache } from "lru-cache";
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { type Credential, parseCertificates, parseCredential } from "../connector/credential.ts";
import type { ReadUpstreamSecrets, Result } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import type { Log } from "../log.ts";
import type { ApiClient } from "./api-client.ts";
import { ApiError, hasStatus } from "./api-error.ts";
import { listAll } from "./list-all.ts";
import { createLookupCache, type LookupResult, type OnLookup } from "./lookup-cache.ts";

export interface UpstreamSecretsOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Where the Secrets with certificates for all connectors lie. */
  readonly installNamespace: string;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly log: Log;
  /** Is called for each value with where it came from. */
  readonly onLookup?: OnLookup;
}

const positiveMs = 30_000;
const negativeMs = 2_000;
/** While the API server is away a new password can't be had anyway. */
const usableMs = 10 * 60_000;
const maxEntries = 2_000;

/** Secrets with this label in the install namespace are trusted by every connector. */
export const sharedCaLabel = "connectors.cpaas.io/ca-cert=true";

/**
 * Reads a connector's Secrets from the API server when they are needed. A Secret with certificates
 * that is missing or forbidden adds none, as it makes no connector unready either; the log tells of it.
 */
export function readSecrets(options: UpstreamSecretsOptions): ReadUpstreamSecrets {
  const { client, installNamespace, now, onLookup } = options;
  const credentials = createLookupCache<Result<Credential>>({ maxEntries, now, onLookup });
  const certificates = createLookupCache<readonly string[]>({ maxEntries, now, onLookup });
  const complain = complainOnce(options.log);

  async function credentialOf(
    { uid, namespace, secretName }: Connector,
    fresh: boolean,
  ): Promise<Result<Credential | undefined>> {
    if (secretName === undefined) return { ok: true, value: undefined };
    const look = async (): Promise<LookupResult<Result<Credential>>> => {
      const value = await readCredential(client, namespace, secretName);
      return value.ok ? { value, freshMs: positiveMs, usableMs } : { value, freshMs: negativeMs };
    };
    return credentials.get(`${uid} ${namespace}/${secretName}`, look, fresh);
  }

  async function certificatesOf(
    { uid, namespace, caCertSecretName }: Connector,
    fresh: boolean,
  ): Promise<readonly string[]> {
    if (caCertSecretName === undefined) return [];
    const secret = `Secret ${namespace}/${caCertSecretName}`;
    const look = (): Promise<LookupResult<readonly string[]>> =>
      complain(secret, async () => {
        const path = secretPath(namespace, caCertSecretName);
        return parseCertificates(await client.request({ path }));
      });
    return certificates.get(`${uid} ${secret}`, look, fresh);
  }

  function sharedCertificates(): Promise<readonly string[]> {
    const secrets = `Secrets labelled ${sharedCaLabel} in namespace ${installNamespace}`;
    const look = (): Promise<LookupResult<readonly string[]>> =>
      complain(secrets, async () => {
        const query = { labelSelector: sharedCaLabel };
        const { items } = await listAll(client, secretPath(installNamespace), query);
        return items.flatMap(parseCertificates);
      });
    return certificates.get("shared", look);
  }

  return async (connector, { fresh = false } = { fresh: false }) => {
    const [credential, own, shared] = await Promise.all([
      credentialOf(connector, fresh),
      certificatesOf(connector, fresh),
      sharedCertificates(),
    ]);
    if (!credential.ok) return credential;
    const caCertificates = [...new Set([...own, ...shared])];
    return { ok: true, value: { credential: credential.value, caCertificates } };
  };
}

const secretPath = (namespace: string, name?: string): string =>
  `/api/v1/namespaces/${namespace}/secrets${name === undefined ? "" : `/${name}`}`;

async function readCredential(
  client: Pick<ApiClient, "request">,
  namespace: string,
  name: string,
): Promise<Result<Credential>> {
  const ref = showRef({ namespace, name });
  try {
    const credential = parseCredential(await client.request({ path: secretPath(namespace, name) }));
    if (credential.ok) return credential;
    return { ok: false, reason: `Secret ${ref}: ${describeProblems(credential.problems)}` };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const reason = hasStatus(error, 404)
      ? `there is no Secret ${ref}: create it, with username and password, or remove auth.secretRef`
      : `Secret ${ref} can't be read: ${error.message}`; // it names the right that is missing
    return { ok: false, reason };
  }
}

type Complain = (
  what: string,
  read: () => Promise<readonly string[]>,
) => Promise<LookupResult<readonly string[]>>;

/** Reads certificates, none where the API server refuses that, which is logged when it changes. */
function complainOnce(log: Log): Complain {
  const troubles = new LRUCache<string, string>({ max: maxEntries });
  return async (what, read) => {
    try {
      const value = await read();
      troubles.delete(what);
      return { value, freshMs: positiveMs, usableMs };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (troubles.get(what) !== error.message) {
        log("warning", "CA certificates can't be read and are not trusted", {
          reference: what,
          error,
        });
      }
      troubles.set(what, error.message);
      return { value: [], freshMs: negativeMs };
    }
  };
}
