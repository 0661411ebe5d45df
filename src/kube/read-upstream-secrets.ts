import { LRUCache } from "lru-cache";
import { type Connector, loginAddressOf } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import {
  type ClientCertificate,
  type Credential,
  parseCertificates,
  parseClientCertificate,
  parseCredential,
} from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import { type ReadUpstreamSecrets, type Result, Unavailable } from "../connector/platform.ts";
import { type Checked, describeProblems } from "../connector/problem.ts";
import type { RegistryAddress } from "../connector/registry-address.ts";
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
/**
 * The controller gives the right to read a Secret when a Connector comes or names another one. For so long a refusal by the
 * API server counts as passing.
 */
const rightMs = 30_000;
/** How soon a Secret is read again whose right is not there yet. */
const pendingMs = 500;
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

/** The name of the ConfigMap, in the install namespace, into which the controller copies those certificates. */
export const sharedCaConfigMapName = "connectors-shared-cas";
/** The key of the certificates in the ConfigMap. */
export const sharedCaConfigMapKey = "ca.crt";

/**
 * Creates a function that reads a connector's Secrets from the API server when they are needed. A Secret with
 * certificates that is missing or forbidden is logged and adds none, as it does not make the connector unready either.
 * It throws Unavailable also for a Secret that may not be read yet, since the Connector is new or names another one.
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
  const clientCertificates = createLookupCache<Owned<Result<ClientCertificate>>>({
    ...cache,
    ownerOf: ({ namespace }) => namespace,
    sizeOf: ({ value }) =>
      entryBytes + (value.ok ? value.value.certificate.length + value.value.privateKey.length : 0),
  });
  const certificates = createLookupCache<Owned<readonly string[]>>({
    ...cache,
    ownerOf: ({ namespace }) => namespace,
    sizeOf: ({ value }) => value.reduce((bytes, { length }) => bytes + length, entryBytes),
  });
  const readCertificates = createCertificatesReader(options.log);
  /** Since when which Secret of which connector may not be read. */
  const forbiddenSince = new LRUCache<string, number>({ max: maxRefusals });

  async function credentialOf(
    connector: Connector,
    fresh: boolean,
  ): Promise<Result<Credential | undefined>> {
    const { uid, namespace, secretName } = connector;
    if (secretName === undefined) return { ok: true, value: undefined };
    const address = loginAddressOf(connector);
    const lookUp = (): Promise<LookupResult<Owned<Result<Credential>>>> =>
      read(uid, namespace, secretName, loginSecret(address));
    const key = `${uid} ${namespace}/${secretName} ${address.origin}${address.basePath}`;
    return settled(await credentials.get(key, lookUp, fresh));
  }

  async function clientCertificateOf(
    { uid, namespace, clientCertSecretName }: Connector,
    fresh: boolean,
  ): Promise<Result<ClientCertificate | undefined>> {
    if (clientCertSecretName === undefined) return { ok: true, value: undefined };
    const lookUp = (): Promise<LookupResult<Owned<Result<ClientCertificate>>>> =>
      read(uid, namespace, clientCertSecretName, clientCertificateSecret);
    const key = `${uid} ${namespace}/${clientCertSecretName}`;
    return settled(await clientCertificates.get(key, lookUp, fresh));
  }

  /** Reads a connector's Secret in its turn. */
  async function read<T>(
    uid: string,
    namespace: string,
    name: string,
    kind: SecretKind<T>,
  ): Promise<LookupResult<Owned<Result<T>>>> {
    const asker = { group: namespace, member: uid };
    const found = await queue.run(asker, () => readSecret(client, namespace, name, kind));
    const key = `${uid} ${namespace}/${name}`;
    if (found.ok || !found.isForbidden) forbiddenSince.delete(key);
    if (found.ok) return { value: { namespace, value: found }, freshMs: positiveMs, usableMs };
    if (found.isForbidden && !forbiddenSince.has(key)) forbiddenSince.set(key, now());
    const isPending = found.isForbidden && now() - (forbiddenSince.get(key) ?? 0) < rightMs;
    return {
      value: { namespace, value: found, isPending },
      freshMs: isPending ? pendingMs : negativeMs,
      isRefusal: true,
    };
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
    const configMap = `ConfigMap ${installNamespace}/${sharedCaConfigMapName}`;
    const lookUp = (): Promise<LookupResult<Owned<readonly string[]>>> =>
      readCertificates(installNamespace, configMap, () =>
        readSharedCertificates(client, installNamespace),
      );
    return (await certificates.get("shared", lookUp)).value;
  }

  return async (connector, { fresh = false } = { fresh: false }) => {
    const [credential, clientCertificate, own, shared] = await Promise.all([
      credentialOf(connector, fresh),
      clientCertificateOf(connector, fresh),
      certificatesOf(connector, fresh),
      sharedCertificates(),
    ]);
    if (!credential.ok) return credential;
    if (!clientCertificate.ok) return clientCertificate;
    const value = {
      credential: credential.value,
      caCertificates: [...new Set([...own, ...shared])],
    };
    return clientCertificate.value === undefined
      ? { ok: true, value }
      : { ok: true, value: { ...value, clientCertificate: clientCertificate.value } };
  };
}

/** Something that was read from the Secrets of a namespace. */
interface Owned<T> {
  readonly namespace: string;
  readonly value: T;
  /** Whether it is refused for want of a right that is being given. */
  readonly isPending?: boolean;
}

/** @throws Unavailable for what is refused for the moment */
function settled<T>({ value, isPending }: Owned<Result<T>>): Result<T> {
  if (value.ok || !isPending) return value;
  throw new Unavailable(
    `${value.reason}; the controller gives the proxy this right within seconds`,
  );
}

const secretPath = (namespace: string, name?: string): string =>
  `/api/v1/namespaces/${namespace}/secrets${name === undefined ? "" : `/${name}`}`;

/**
 * Reads the certificates that every connector trusts. A controller or a Role from before the ConfigMap leaves the Secrets
 * themselves to be listed.
 * @throws ApiError of the ConfigMap where neither can be read
 */
async function readSharedCertificates(
  client: Pick<ApiClient, "request">,
  namespace: string,
): Promise<readonly string[]> {
  try {
    const path = `/api/v1/namespaces/${namespace}/configmaps/${sharedCaConfigMapName}`;
    const bundle = property(property(await client.request({ path }), "data"), sharedCaConfigMapKey);
    return parseCertificates({ stringData: { [sharedCaConfigMapKey]: bundle } });
  } catch (error) {
    if (!hasStatus(error, 404) && !hasStatus(error, 403)) throw error;
    const options = { query: { labelSelector: sharedCaLabel } };
    const { items } = await listAll(client, secretPath(namespace), options).catch(
      (refusal: unknown) => {
        throw hasStatus(refusal, 403) ? error : refusal;
      },
    );
    return items.flatMap(parseCertificates);
  }
}

/** How a Secret of a kind is read, and what to do where it is missing. */
interface SecretKind<T> {
  readonly parse: (secret: unknown) => Checked<T>;
  readonly ifMissing: string;
}

const loginSecret = (address: RegistryAddress): SecretKind<Credential> => ({
  parse: (secret) => parseCredential(secret, address),
  ifMissing: "create it, with username and password, or remove auth.secretRef",
});

const clientCertificateSecret: SecretKind<ClientCertificate> = {
  parse: parseClientCertificate,
  ifMissing: "create it, with tls.crt and tls.key, or remove clientCertSecret from spec.params",
};

/** A Secret's content, or why there is none. */
type ReadSecret<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string; readonly isForbidden: boolean };

async function readSecret<T>(
  client: Pick<ApiClient, "request">,
  namespace: string,
  name: string,
  { parse, ifMissing }: SecretKind<T>,
): Promise<ReadSecret<T>> {
  const ref = showRef({ namespace, name });
  try {
    const parsed = parse(await client.request({ path: secretPath(namespace, name) }));
    if (parsed.ok) return parsed;
    const reason = `Secret ${ref}: ${describeProblems(parsed.problems)}`;
    return { ok: false, reason, isForbidden: false };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const reason = hasStatus(error, 404)
      ? `there is no Secret ${ref}: ${ifMissing}`
      : `Secret ${ref} can't be read: ${error.message}`; // it names the right that is missing
    return { ok: false, reason, isForbidden: hasStatus(error, 403) };
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
