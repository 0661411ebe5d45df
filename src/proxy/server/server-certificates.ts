import { createSecureContext, type SecureContext } from "node:tls";
import { type IssueLeaf, type KeyPair, leafLifetime } from "../../certificate-authority.ts";

export interface ServerCertificatesOptions {
  /** Signs with the authority of the moment; another function once that has changed. */
  readonly leafIssuer: () => IssueLeaf;
  /** Whether a name is one that the proxy answers under; others get the one for the host that is listened on. */
  readonly servesName: (name: string) => boolean;
  readonly now: () => number;
}

export interface ServerCertificates {
  /** The certificate for a name, undefined where the proxy does not answer under it. */
  context(name: string): Promise<SecureContext | undefined>;
  /** A fresh certificate for the host that is listened on. */
  leaf(host: string): Promise<KeyPair>;
}

const mostNames = 1_000;

interface Leaf {
  readonly context: Promise<SecureContext>;
  readonly issuer: IssueLeaf;
  /** Milliseconds since 1970. */
  readonly renewAt: number;
}

/** A leaf for each name that clients ask for, made when it is first asked for and again at half of its life. */
export function createServerCertificates(options: ServerCertificatesOptions): ServerCertificates {
  const { leafIssuer, servesName, now } = options;
  const leaves = new Map<string, Leaf>();
  const issue = async (name: string, issueLeaf: IssueLeaf): Promise<SecureContext> => {
    const { certificate, privateKey } = await issueLeaf(name, new Date(now()));
    return createSecureContext({ cert: certificate, key: privateKey });
  };
  return {
    leaf: (host) => leafIssuer()(host, new Date(now())),
    async context(servername) {
      const name = servername.toLowerCase();
      if (!servesName(name)) return undefined;
      const known = leaves.get(name);
      const issuer = leafIssuer();
      if (known?.issuer === issuer && known.renewAt > now()) return known.context;
      const context = issue(name, issuer);
      const [oldest] = leaves.keys();
      if (leaves.size >= mostNames && oldest !== undefined) leaves.delete(oldest);
      leaves.set(name, { context, issuer, renewAt: now() + leafLifetime / 2 });
      context.catch(() => leaves.delete(name));
      return context;
    },
  };
}
