import { createSecureContext, type SecureContext } from "node:tls";
import { type IssueLeaf, type KeyPair, leafLifetime } from "../certificate-authority.ts";

export interface ServerCertificatesOptions {
  readonly issueLeaf: IssueLeaf;
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

/** A leaf for each name that clients ask for, made when it is first asked for and again at half of its life. */
export function createServerCertificates(options: ServerCertificatesOptions): ServerCertificates {
  const { issueLeaf, servesName, now } = options;
  const leaves = new Map<string, { context: Promise<SecureContext>; readonly renewAt: number }>();
  const leaf = (name: string): Promise<KeyPair> => issueLeaf(name, new Date(now()));
  const issue = async (name: string): Promise<SecureContext> => {
    const { certificate, privateKey } = await leaf(name);
    return createSecureContext({ cert: certificate, key: privateKey });
  };
  return {
    leaf,
    async context(servername) {
      const name = servername.toLowerCase();
      if (!servesName(name)) return undefined;
      const known = leaves.get(name);
      if (known !== undefined && known.renewAt > now()) return known.context;
      const context = issue(name);
      const [oldest] = leaves.keys();
      if (leaves.size >= mostNames && oldest !== undefined) leaves.delete(oldest);
      leaves.set(name, { context, renewAt: now() + leafLifetime / 2 });
      context.catch(() => leaves.delete(name));
      return context;
    },
  };
}
