import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { LRUCache } from "lru-cache";
import { type IssueLeaf, type KeyPair, leafLifetimeMs } from "../../certificate-authority.ts";
import { createKeyedQueue } from "../../concurrency.ts";

export interface ServerCertificatesOptions {
  /** The issuer of the current authority; another function once the authority has changed. */
  readonly leafIssuer: () => IssueLeaf;
  /** Whether the proxy has a certificate for this name, in lower case. */
  readonly servesName: (name: string) => boolean;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Certificates that the proxy shows to clients. */
export interface ServerCertificates {
  /**
   * The certificate for an SNI name, kept for half of its lifetime; undefined where the proxy has none for it.
   * @param asker who asks for it: the address of a client, or a subject. One certificate at a time is made for each, and
   *   a part of those that are kept may be theirs.
   */
  contextFor(name: string, asker: string): Promise<SecureContext | undefined>;
  /** Issues a new certificate for a host, whatever its name, and for addresses by which clients reach it. */
  issueFor(host: string, addresses?: readonly string[]): Promise<KeyPair>;
}

/**
 * TLS as this proxy speaks it with clients: 1.2 with authenticated encryption (AEAD) alone, or 1.3, which has no other.
 * The certificates are ECDSA's.
 */
export const tlsOptions: Readonly<SecureContextOptions> = {
  minVersion: "TLSv1.2",
  ciphers: [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
  ].join(":"),
};

/** Certificates that are kept. One takes some 10 KiB. */
const maxNames = 1_000;
/** Those of them that one asker was the first to ask for. */
const maxNamesPerAsker = 128;

interface Leaf {
  readonly context: Promise<SecureContext>;
  readonly issuer: IssueLeaf;
  /** Who was the first to ask for it. */
  readonly asker: string;
  /** Milliseconds since 1970. */
  readonly renewAt: number;
}

/** Issues a certificate for each name on first use, and a new one after half of its lifetime or with a new authority. */
export function createServerCertificates(options: ServerCertificatesOptions): ServerCertificates {
  const { leafIssuer, servesName, now } = options;
  /** The names that each asker was the first to ask for, the oldest first. */
  const namesOf = new Map<string, Set<string>>();
  const leaves = new LRUCache<string, Leaf>({
    max: maxNames,
    dispose({ asker }, name) {
      const names = namesOf.get(asker);
      names?.delete(name);
      if (names?.size === 0) namesOf.delete(asker);
    },
  });
  const issuing = createKeyedQueue();
  const issue = async (name: string, issueLeaf: IssueLeaf): Promise<SecureContext> => {
    const { certificate, privateKey } = await issueLeaf(name, new Date(now()));
    return createSecureContext({ cert: certificate, key: privateKey, ...tlsOptions });
  };
  const keep = (name: string, leaf: Leaf): void => {
    leaves.delete(name);
    const own = namesOf.get(leaf.asker);
    if (own !== undefined && own.size >= maxNamesPerAsker) {
      const [oldest = ""] = own;
      leaves.delete(oldest);
    }
    const names = namesOf.get(leaf.asker) ?? new Set();
    namesOf.set(leaf.asker, names.add(name));
    leaves.set(name, leaf);
    leaf.context.catch(() => {
      if (leaves.peek(name) === leaf) leaves.delete(name);
    });
  };
  return {
    issueFor: (host, addresses) => leafIssuer()(host, new Date(now()), addresses),
    async contextFor(servername, asker) {
      const name = servername.toLowerCase();
      if (!servesName(name)) return undefined;
      const known = leaves.get(name);
      const issuer = leafIssuer();
      if (known?.issuer === issuer && known.renewAt > now()) return known.context;
      const context = issuing.run(asker, () => issue(name, issuer));
      keep(name, { context, issuer, asker, renewAt: now() + leafLifetimeMs / 2 });
      return context;
    },
  };
}
