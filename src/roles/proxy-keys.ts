import { type IssueLeaf, type KeyPair, leafIssuer } from "../certificate-authority.ts";
import { describeProblems } from "../connector/problem.ts";
import { keysSecretName, openingKeys, parseProxyKeys } from "../connector/proxy-keys.ts";
import type { Log } from "../log.ts";
import type { ClusterConnection } from "./cluster.ts";

/** The keys that all proxies of a cluster share, as they are now. */
export interface WatchedProxyKeys {
  /** Settles when they are there. The controller makes them. */
  readonly arrived: Promise<void>;
  /** @throws TypeError before they are there */
  leafIssuer(): IssueLeaf;
  /** @throws TypeError before they are there */
  sealKeys(): readonly [Buffer, ...Buffer[]];
}

interface KeysInUse {
  readonly authority: KeyPair;
  readonly issueLeaf: IssueLeaf;
  readonly sealKeys: readonly [Buffer, ...Buffer[]];
}

/** Follows the Secret with the keys. One that can't be used is logged, and those before stay in use. */
export function watchProxyKeys(
  cluster: ClusterConnection,
  namespace: string,
  log: Log,
): WatchedProxyKeys {
  const arrived = Promise.withResolvers<void>();
  let inUse: KeysInUse | undefined;
  const secrets = cluster.watchOne(`/api/v1/namespaces/${namespace}/secrets`, keysSecretName);
  const take = async (secret: unknown): Promise<void> => {
    const keys = parseProxyKeys(secret);
    if (!keys.ok) {
      const reason = describeProblems(keys.problems);
      log("error", "the proxy's keys can't be used", { reference: keysSecretName, reason });
      return;
    }
    const { authority, sealKey } = keys.value;
    const isSame = inUse?.authority.certificate === authority.certificate;
    inUse = {
      authority,
      issueLeaf: isSame && inUse ? inUse.issueLeaf : await leafIssuer(authority),
      sealKeys: [sealKey, ...openingKeys(keys.value).slice(1)],
    };
    arrived.resolve();
  };
  secrets.onChange(({ object }) => {
    if (object !== undefined) {
      take(object).catch((error: unknown) =>
        log("error", "the proxy's keys can't be used", { reference: keysSecretName, error }),
      );
    }
  });
  const current = (): KeysInUse => {
    if (inUse === undefined) throw new TypeError(`the Secret ${keysSecretName} does not exist yet`);
    return inUse;
  };
  return {
    arrived: arrived.promise,
    leafIssuer: () => current().issueLeaf,
    sealKeys: () => current().sealKeys,
  };
}
