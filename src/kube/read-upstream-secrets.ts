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

/** What is needed to read the Secrets of connectors. */
export interface UpstreamSecretsOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The namespace of the Secrets with certificates for all connectors. */
  readonly installNamespace: string;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Log;
  /** Is called for each Secret with where its content came from. */
  readonly onLookup?: OnLookup;
}

const positiveMs = 30_000;
const negativeMs = 2_000;
/** While the API server is away, a new password can't be read anyway. */
const usableMs = 10 * 60_000;
const maxEntries = 2_000;

/** The label of Secrets in the install namespace whose certificates every connector trusts. */
export const sharedCaLabel = "connectors.cpaas.io/ca-cert=true";

/**
 * Creates a function that reads a connector's Secrets from the API server when they are needed. A Secret with
 * certificates that is missing or forbidden is logged and adds none, as it does not make the connector unready either.
 */
export function createUpstreamSecretsReader(options: UpstreamSecretsOptions): ReadUpstreamSecrets {
  const { client, installNamespace, now, onLookup } = options;
  const credentials = createLookupCache<Result<Credential>>({ maxEntries, now, onLookup });
  const certificates = createLookupCache<readonly string[]>({ maxEntries, now, onLookup });
  const readCertificates = createCertificatesReader(options.log);

  async function credentialOf(
    { uid, namespace, secretName }: Connector,
    fresh: boolean,
  ): Promise<Result<Credential | undefined>> {
    if (secretName === undefined) return { ok: true, value: undefined };
    const lookUp = async (): Promise<LookupResult<Result<Credential>>> => {
      const value = await readCredential(client, namespace, secretName);
      return value.ok ? { value, freshMs: positiveMs, usableMs } : { value, freshMs: negativeMs };
    };
    return credentials.get(`${uid} ${namespace}/${secretName}`, lookUp, fresh);
  }

  async function certificatesOf(
    { uid, namespace, caCertSecretName }: Connector,
    fresh: boolean,
  ): Promise<readonly string[]> {
    if (caCertSecretName === undefined) return [];
    const secret = `Secret ${namespace}/${caCertSecretName}`;
    const lookUp = (): Promise<LookupResult<readonly string[]>> =>
      readCertificates(secret, async () => {
        const path = secretPath(namespace, caCertSecretName);
        return parseCertificates(await client.request({ path }));
      });
    return certificates.get(`${uid} ${secret}`, lookUp, fresh);
  }

  function sharedCertificates(): Promise<readonly string[]> {
    const secrets = `Secrets labelled ${sharedCaLabel} in namespace ${installNamespace}`;
    const lookUp = (): Promise<LookupResult<readonly string[]>> =>
      readCertificates(secrets, async () => {
        const query = { labelSelector: sharedCaLabel };
        const { items } = await listAll(client, secretPath(installNamespace), query);
        return items.flatMap(parseCertificates);
      });
    return certificates.get("shared", lookUp);
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

/** @param reference which Secrets, for the log */
type ReadCertificates = (
  reference: string,
  read: () => Promise<readonly string[]>,
) => Promise<LookupResult<readonly string[]>>;

/**
 * Creates a function that reads certificates. Where the API server refuses that, there are none, and each new refusal
 * is logged once.
 */
function createCertificatesReader(log: Log): ReadCertificates {
  const refusals = new LRUCache<string, string>({ max: maxEntries });
  return async (reference, read) => {
    try {
      const value = await read();
      refusals.delete(reference);
      return { value, freshMs: positiveMs, usableMs };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (refusals.get(reference) !== error.message) {
        log("warning", "CA certificates can't be read and are not trusted", {
          reference,
          error,
        });
      }
      refusals.set(reference, error.message);
      return { value: [], freshMs: negativeMs };
    }
  };
}
