import { createHash, type Hash, hash } from "node:crypto";
import { showRef } from "../../connector/connector-ref.ts";
import type { ResponseHead } from "../../upstream/http-client/http-exchange.ts";
import type { UpstreamLogin } from "../../upstream/upstream-login.ts";
import { isImmutableTag } from "../admission.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { contentDigest } from "../headers.ts";
import { badGateway, denied, serviceUnavailable } from "../registry-error.ts";
import { parameters } from "../request/query.ts";
import { maxManifestBytes } from "../request/request-body.ts";
import type { ResponseSink } from "./exchange.ts";
import { type ReplayOptions, replay } from "./replay.ts";
import { headersForRegistry, type UpstreamRequest } from "./upstream-request.ts";

/** Every kind of manifest, so that no registry converts one to another with another digest. */
const manifestTypes = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

/**
 * Sees to it that a request other than GET and HEAD makes an immutable tag once, and never changes it or takes it away. Two
 * pushes of a new tag at the same moment can both pass: registries have no way to create a tag only where there is none.
 * @throws RegistryError 403 where it would change, 503 where the registry does not say what is there
 */
export async function keepImmutableTag(
  { method, target, connector, heldBody, response, patience }: AdmittedRequest,
  change: UpstreamRequest,
  login: UpstreamLogin,
): Promise<void> {
  const { endpoint, repository, query } = target;
  if (endpoint.kind !== "manifest") return;
  // A push by digest may name tags beside it (distribution-spec, "Pushing a manifest with tags").
  const named = [endpoint.reference, ...parameters(query, "tag")];
  for (const tag of named.filter((name) => isImmutableTag(connector, name))) {
    const refusal = denied(
      `${repository}:${tag} is immutable in the connector ${showRef(connector)}`,
      {
        detail:
          "push another tag; spec.params says under immutableTags which tags can't be changed",
      },
    );
    if (method === "DELETE") throw refusal;
    const url = new URL(encodeURIComponent(tag), change.url); // beside the reference that is pushed
    const current = await digestOfTag(change, url, { login, response, patience });
    // The same manifest once more changes nothing.
    if (current !== undefined && current !== digestOfPush(heldBody, current)) throw refusal;
  }
}

/** The digest of a manifest, by the same algorithm as another digest where that is known. */
function digestOfPush(manifest: Buffer | undefined, other: string): string {
  const algorithm = other.startsWith("sha512:") ? "sha512" : "sha256";
  return `${algorithm}:${hash(algorithm, manifest ?? "")}`;
}

/**
 * The digest that a tag points to; undefined where there is no such tag. A registry whose HEAD does not say it, which no
 * specification demands (quay#1310), is asked for the manifest itself.
 * @throws RegistryError 503 where the registry does not say; UpstreamError, ClientGone
 */
async function digestOfTag(
  change: UpstreamRequest,
  url: URL,
  options: Omit<ReplayOptions, "sink">,
): Promise<string | undefined> {
  const headers = headersForRegistry({ accept: manifestTypes, "accept-encoding": "identity" });
  const ask = async (method: string): Promise<{ readonly status: number; digest?: string }> => {
    const sink = new DigestSink();
    const asked = { ...change, method, url, headers, body: undefined };
    const { status, headers: received, hop } = await replay(asked, { ...options, sink });
    const digest = sink.digest ?? contentDigest(received) ?? hop.digest;
    return digest === undefined ? { status } : { status, digest };
  };
  const head = await ask("HEAD");
  const isUnclear = head.digest === undefined && unclearStatuses.has(head.status);
  const { status, digest } = isUnclear ? await ask("GET") : head;
  if (status === 404) return undefined;
  if (status === 200 && digest !== undefined) return digest;
  const { origin } = change.upstream.connector.address;
  throw serviceUnavailable(
    `the registry ${origin} does not say whether the tag is there (${status})`,
  );
}

/** What registries answer to HEAD that name no digest there, or know no HEAD. */
const unclearStatuses: ReadonlySet<number> = new Set([200, 400, 405, 406, 501]);

/** Hashes a manifest, and keeps nothing of it. */
class DigestSink implements ResponseSink {
  #hash: Hash | undefined;
  #bytes = 0;
  /** The digest of the whole body, once that has come. */
  digest: string | undefined;

  begin({ status, headers }: ResponseHead): boolean {
    const isManifest = status === 200 && headers["content-encoding"] === undefined;
    this.#hash = isManifest ? createHash("sha256") : undefined;
    return isManifest;
  }

  write(chunk: Buffer, release: () => void): void {
    this.#bytes += chunk.length;
    if (this.#bytes > maxManifestBytes) throw badGateway("the registry sent too long a manifest");
    this.#hash?.update(chunk);
    release();
  }

  end(): undefined {
    if (this.#bytes > 0) this.digest = `sha256:${this.#hash?.digest("hex")}`; // HEAD has no body
  }
}
