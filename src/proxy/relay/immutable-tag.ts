import { hash } from "node:crypto";
import { showRef } from "../../connector/connector-ref.ts";
import { type FetchedHead, fetchHead } from "../../upstream/fetch-head.ts";
import type { UpstreamLogin } from "../../upstream/upstream-login.ts";
import { isImmutableTag } from "../admission.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { denied, unavailable } from "../registry-error.ts";
import { parameters } from "../request/query.ts";
import type { UpstreamRequest } from "./upstream-request.ts";

/** Every kind of manifest, so that no registry converts one to another with another digest. */
const manifestTypes = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");
const timeoutMs = 20_000;

/**
 * Sees to it that a request other than GET and HEAD makes an immutable tag once, and never changes it or takes it away. Two
 * pushes of a new tag at the same moment can both pass: registries have no way to create a tag only where there is none.
 * @throws RegistryError 403 where it would change, 503 where the registry does not say what is there
 */
export async function keepImmutableTag(
  { method, target, connector, heldBody }: AdmittedRequest,
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
    const current = await digestOfTag({ ...change, url }, login);
    // The same manifest once more changes nothing.
    if (current !== undefined && current !== digestOfPush(heldBody)) throw refusal;
  }
}

const digestOfPush = (manifest: Buffer | undefined): string =>
  `sha256:${hash("sha256", manifest ?? "")}`;

/** The digest that a tag points to; undefined where there is no such tag. */
async function digestOfTag(
  { upstream, url, scopes }: Pick<UpstreamRequest, "upstream" | "url" | "scopes">,
  login: UpstreamLogin,
): Promise<string | undefined> {
  const attempt = async (): Promise<FetchedHead> => {
    const authorization = await login.authorization(upstream, scopes);
    const head = await fetchHead(upstream, url, {
      method: "HEAD",
      headers: { accept: manifestTypes },
      authorization,
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (head.status === 401) {
      login.learnFromChallenge(upstream, scopes, authorization, head.headers["www-authenticate"]);
    }
    return head;
  };
  const first = await attempt();
  const { status, headers } = first.status === 401 ? await attempt() : first;
  const digest = headers["docker-content-digest"];
  if (status === 404) return undefined;
  if (status === 200 && typeof digest === "string") return digest;
  const { origin } = upstream.connector.address;
  throw unavailable(`the registry ${origin} does not say whether the tag is there (${status})`);
}
