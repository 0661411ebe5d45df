import { LRUCache } from "lru-cache";
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { type Credential, parseCertificates, parseCredential } from "../connector/credential.ts";
import type { ReadUpstreamSecrets, Result } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import type { Log } from "../log.ts";
import type { ApiClient } from "./api-client.ts";
import { ApiError, hasStatus } from "./api-error.ts";
import { createFairQueue } from "./fair-queue.ts";
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
  /** Is called for each Secret that is not read, since too many others wait. */
  readonly onReject?: () => void;
}

const positiveMs = 30_000;
const negativeMs = 2_000;
/** While the API server is away, a new password can't be read anyway. */
const usableMs = 10 * 60_000;
/** The bytes of all credentials that are kept, and those of all certificates. */
const maxKeptBytes = 16 * 1024 * 1024;
/** What an entry takes beside its content. */
const entryBytes = 512;
/** Secrets that are read at once. */
const concurrency = 4;
const maxRefusals = 2_000;

/** The label of Secrets in the install namespace whose certificates every connector trusts. */
export const sharedCaLabel = "connectors.cpaas.io/ca-cert=true";

/**
 * Creates a function that reads a connector's Secrets from the API server when they are needed. A Secret with
 * certificates that is missing or forbidden is logged and adds none, as it does not make the connector unready either.
 */
export function createUpstreamSecretsReader(options: UpstreamSecretsOptions): ReadUpstreamSecrets {
  const { client, installNamespace, now, onLookup, onReject } = options;
  const queue = createFairQueue({ what: "reads of Secrets", concurrency, onReject });
  const cache = { maxEntries: maxKeptBytes, now, onLookup };
  const credentials = createLookupCache<Owned<Result<Credential>>>({
    ...cache,
    ownerOf: ({ namespace }) => namespace,
    sizeOf: ({ value }) =>
      entryBytes + (value.ok ? value.value.username.length + value.value.password.length : 0),
  });
  const certificates = createLookupCache<Owned<readonly string[]>>({
    ...cache,
    ownerOf: ({ namespace }) => namespace,
    sizeOf: ({ value }) => value.reduce((bytes, { length }) => bytes + length, entryBytes),
  });
  const readCertificates = createCertificatesReader(options.log);

  async function credentialOf(
    { uid, namespace, secretName }: Connector,
    fresh: boolean,
  ): Promise<Result<Credential | undefined>> {
    if (secretName === undefined) return { ok: true, value: undefined };
    const lookUp = async (): Promise<LookupResult<Owned<Result<Credential>>>> => {
      const asker = { group: namespace, member: uid };
      const read = await queue.run(asker, () => readCredential(client, namespace, secretName));
      const value = { namespace, value: read };
      return read.ok
        ? { value, freshMs: positiveMs, usableMs }
        : { value, freshMs: negativeMs, isRefusal: true };
    };
    return (await credentials.get(`${uid} ${namespace}/${secretName}`, lookUp, fresh)).value;
  }

  async function certificatesOf(
    { uid, namespace, caCertSecretName }: Connector,
    fresh: boolean,
  ): Promise<readonly string[]> {
    if (caCertSecretName === undefined) return [];
    const secret = `Secret ${namespace}/${caCertSecretName}`;
    const lookUp = (): Promise<LookupResult<Owned<readonly string[]>>> =>
      readCertificates(namespace, secret, () =>
        queue.run({ group: namespace, member: uid }, async () => {
          const path = secretPath(namespace, caCertSecretName);
          return parseCertificates(await client.request({ path }));
        }),
      );
    return (await certificates.get(`${uid} ${secret}`, lookUp, fresh)).value;
  }

  async function sharedCertificates(): Promise<readonly string[]> {
    const secrets = `Secrets labelled ${sharedCaLabel} in namespace ${installNamespace}`;
    const lookUp = (): Promise<LookupResult<Owned<readonly string[]>>> =>
      readCertificates(installNamespace, secrets, async () => {
        const { items } = await listAll(client, secretPath(installNamespace), {
          query: { labelSelector: sharedCaLabel },
        });
        return items.flatMap(parseCertificates);
      });
    return (await certificates.get("shared", lookUp)).value;
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

/** Something that was read from the Secrets of a namespace. */
interface Owned<T> {
  readonly namespace: string;
  readonly value: T;
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

/** @param reference which Secrets of the namespace, for the log */
type ReadCertificates = (
  namespace: string,
  reference: string,
  read: () => Promise<readonly string[]>,
) => Promise<LookupResult<Owned<readonly string[]>>>;

/**
 * Creates a function that reads certificates. Where the API server refuses that, there are none, and each new refusal
 * is logged once.
 */
function createCertificatesReader(log: Log): ReadCertificates {
  const refusals = new LRUCache<string, string>({ max: maxRefusals });
  return async (namespace, reference, read) => {
    try {
      const value = { namespace, value: await read() };
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
      return { value: { namespace, value: [] }, freshMs: negativeMs, isRefusal: true };
    }
  };
}
