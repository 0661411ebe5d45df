import { createSecureContext, type SecureContext } from "node:tls";
import { LRUCache } from "lru-cache";
import { type IssueLeaf, type KeyPair, leafLifetimeMs } from "../../certificate-authority.ts";

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
  /** The certificate for an SNI name, kept for half of its lifetime; undefined where the proxy has none for it. */
  contextFor(name: string): Promise<SecureContext | undefined>;
  /** Issues a new certificate for a host, whatever its name. */
  issueFor(host: string): Promise<KeyPair>;
}

const maxNames = 1_000;

interface Leaf {
  readonly context: Promise<SecureContext>;
  readonly issuer: IssueLeaf;
  /** Milliseconds since 1970. */
  readonly renewAt: number;
}

/** Issues a certificate for each name on first use, and a new one after half of its lifetime or with a new authority. */
export function createServerCertificates(options: ServerCertificatesOptions): ServerCertificates {
  const { leafIssuer, servesName, now } = options;
  const leaves = new LRUCache<string, Leaf>({ max: maxNames });
  const issue = async (name: string, issueLeaf: IssueLeaf): Promise<SecureContext> => {
    const { certificate, privateKey } = await issueLeaf(name, new Date(now()));
    return createSecureContext({ cert: certificate, key: privateKey });
  };
  return {
    issueFor: (host) => leafIssuer()(host, new Date(now())),
    async contextFor(servername) {
      const name = servername.toLowerCase();
      if (!servesName(name)) return undefined;
      const known = leaves.get(name);
      const issuer = leafIssuer();
      if (known?.issuer === issuer && known.renewAt > now()) return known.context;
      const context = issue(name, issuer);
      leaves.set(name, { context, issuer, renewAt: now() + leafLifetimeMs / 2 });
      context.catch(() => leaves.delete(name));
      return context;
    },
  };
}
