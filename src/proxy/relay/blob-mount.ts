import { type ConnectorRef, showRef } from "../../connector/connector-ref.ts";
import { type RegistryAddress, upstreamRepository } from "../../connector/registry-address.ts";
import { isDigest, isRepository } from "../../connector/repository.ts";
import { joinQueries, parameter, withoutParameters } from "../request/query.ts";

/** A cross-repository mount as it goes to the registry. */
export interface BlobMount {
  /** The query of the request, without its question mark. */
  readonly query: string;
  /** The repository to mount from, as clients call it; undefined where the registry may choose. */
  readonly from: string | undefined;
  /** The repository to mount from, as the registry calls it; undefined where it may choose. */
  readonly mountFrom: string | undefined;
}

/** Query parameters that ask for a mount. Without them, the same request begins a plain upload. */
export const mountParameters: readonly string[] = ["mount", "from", "origin"];

const ownForm = /^namespaces\/([^/]+)\/connectors\/([^/]+)\/(.+)$/;

/**
 * Translates a cross-repository mount. Clients name `from` as they know it: with our prefix, or,
 * through a mirror or on a connector's own host, without it. crane and ko also say in `origin` which registry they read it from.
 * @param query of the client's request
 * @param host what the client calls this proxy
 * @returns undefined where a plain upload has to be begun: the query has no mount, or one from behind
 *   another connector or from another registry (`origin`). It is never refused, since containerd gives up a push then (containerd#14086).
 */
export function translateMount(
  query: string,
  connector: ConnectorRef,
  address: RegistryAddress,
  host: string | undefined,
): BlobMount | undefined {
  const digest = parameter(query, "mount");
  if (digest === undefined || !isDigest(digest)) return undefined;
  const mount = `mount=${encodeURIComponent(digest)}`;
  const others = withoutParameters(query, mountParameters);
  const from = parameter(query, "from");
  // Without `from`, a registry may look for the blob wherever it likes (distribution-spec 1.1).
  if (from === undefined) {
    return { query: joinQueries(others, mount), from: undefined, mountFrom: undefined };
  }
  const origin = parameter(query, "origin");
  const isForeign = origin !== undefined && origin !== host;
  const repository = repositoryOf(from, connector, isForeign);
  if (repository === undefined) return undefined;
  const mountFrom = upstreamRepository(address, repository);
  return {
    query: joinQueries(others, mount, `from=${encodeURIComponent(mountFrom)}`),
    from: repository,
    mountFrom,
  };
}

/** A name with our prefix is ours, whichever of the proxy's addresses it was read from. */
function repositoryOf(
  from: string,
  connector: ConnectorRef,
  isForeign: boolean,
): string | undefined {
  const [, namespace = "", name = "", inside] = ownForm.exec(from) ?? [];
  if (inside === undefined) return isRepository(from) && !isForeign ? from : undefined;
  const isSame = showRef({ namespace, name }) === showRef(connector);
  return isSame && isRepository(inside) ? inside : undefined;
}
