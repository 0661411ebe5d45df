import { expect } from "chai";
import type { DockerRegistry } from "../support/docker-registry.ts";
import { type Descriptor, sha256 } from "../support/oci-image.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../support/plain-request.ts";
import type { Content } from "./fixtures.ts";

/** A registry as its owner sees it: asked directly, with its own login. */
export interface RegistryView {
  /** What its own users call it: `localhost:34567` */
  readonly host: string;
  /** Stores an image or an index; what `from` has already is mounted. */
  put(repository: string, tag: string, content: Content, from?: string): Promise<void>;
  /** Reads an image or an index with all that is in it. Fails where a part is missing, or is not what its digest says. */
  read(repository: string, reference: string): Promise<Stored>;
  /** Digests of what refers to a manifest, as the API says, or the fallback tag where the registry has no API. */
  referrers(repository: string, digest: string): Promise<readonly Descriptor[]>;
}

/** A manifest, and what it consists of. */
export interface Stored {
  readonly digest: string;
  readonly mediaType: string;
  /** `linux/amd64`, of the images of an index. */
  readonly platforms: readonly string[];
  /** Of all images in it. */
  readonly layers: readonly string[];
  /** Digests of the layers, unpacked. */
  readonly diffIds: readonly string[];
}

interface ManifestDocument {
  readonly mediaType?: string;
  readonly config?: Descriptor;
  readonly layers?: readonly Descriptor[];
  readonly manifests?: readonly (Descriptor & {
    readonly platform?: { readonly os: string; readonly architecture: string };
  })[];
}

const manifestTypes = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];

/** @param registry an address alone is one of a registry that wants no login */
export function viewRegistry(
  registry: Pick<DockerRegistry, "url" | "host"> & Partial<DockerRegistry>,
): RegistryView {
  // Nobody but the proxy knows its name.
  const { tls, host } = registry;
  const origin = tls === undefined ? registry.url : `https://127.0.0.1:${registry.port}`;
  const trust = tls === undefined ? {} : { ca: tls.ca, servername: host.replace(/:\d+$/, "") };
  const ask = async (
    method: string,
    path: string,
    options: PlainRequestOptions = {},
    ...pulls: readonly string[]
  ): Promise<PlainResponse> => {
    const [, repository] = /^\/v2\/(.+)\/(manifests|blobs|referrers)\//.exec(path) ?? [];
    const scopes = [`${repository}:pull,push`, ...pulls.map((name) => `${name}:pull`)];
    const authorization = await authorize(registry, scopes);
    const headers = { ...options.headers, ...(authorization && { authorization }) };
    return plainRequest(origin + path, { ...options, ...trust, method, headers });
  };
  const get = async (path: string, accept: readonly string[] = []): Promise<PlainResponse> => {
    const response = await ask("GET", path, { headers: { accept: accept.join(", ") } });
    expect(response, path).to.include({ status: 200, complete: true });
    return response;
  };

  const getBlob = async (repository: string, { digest, size }: Descriptor): Promise<Buffer> => {
    const { body } = await get(`/v2/${repository}/blobs/${digest}`);
    expect({ digest: sha256(body), size: body.length }).to.deep.equal({ digest, size });
    return body;
  };
  const putBlob = async (
    repository: string,
    digest: string,
    body: Buffer,
    from: string | undefined,
  ): Promise<void> => {
    const mount = from === undefined ? "" : `?mount=${digest}&from=${from}`;
    const path = `/v2/${repository}/blobs/uploads/${mount}`;
    const begun = await ask("POST", path, {}, ...(from === undefined ? [] : [from]));
    if (begun.status === 201) return;
    const url = new URL(begun.headers.location ?? "", registry.url);
    url.searchParams.set("digest", digest);
    const { status } = await ask("PUT", url.pathname + url.search, { body });
    expect(status, path).to.equal(201);
  };

  const view: RegistryView = {
    host: registry.host,
    async put(repository, tag, content, from) {
      // Those of an index's images come before it.
      const manifests = [...(content.images ?? []), content.manifest];
      const isManifest = (digest: string): boolean =>
        manifests.some((manifest) => manifest.digest === digest);
      for (const [digest, bytes] of content.blobs) {
        if (!isManifest(digest)) await putBlob(repository, digest, bytes, from);
      }
      for (const { digest, mediaType } of manifests) {
        const reference = digest === content.manifest.digest ? tag : digest;
        const body = content.blobs.get(digest) ?? "";
        const headers = { "content-type": mediaType };
        const path = `/v2/${repository}/manifests/${reference}`;
        const { status } = await ask("PUT", path, { body, headers });
        expect(status, path).to.equal(201);
      }
    },
    async read(repository, reference) {
      const { body, headers } = await get(
        `/v2/${repository}/manifests/${reference}`,
        manifestTypes,
      );
      const digest = sha256(body);
      expect(headers["docker-content-digest"]).to.equal(digest);
      const document: ManifestDocument = JSON.parse(body.toString());
      const { manifests = [], layers = [] } = document;
      const images: Stored[] = [];
      for (const { digest } of manifests) images.push(await view.read(repository, digest));
      for (const layer of layers) await getBlob(repository, layer);
      const config = document.config && (await getBlob(repository, document.config));
      return {
        digest,
        mediaType: headers["content-type"] ?? "",
        platforms: manifests.flatMap(({ platform }) =>
          platform ? [`${platform.os}/${platform.architecture}`] : [],
        ),
        layers: [...layers, ...images].flatMap((part) =>
          "layers" in part ? part.layers : [part.digest],
        ),
        diffIds: [...diffIdsIn(config), ...images.flatMap(({ diffIds }) => diffIds)],
      };
    },
    async referrers(repository, digest) {
      const api = await ask("GET", `/v2/${repository}/referrers/${digest}`);
      if (api.status === 200) return JSON.parse(api.body.toString()).manifests;
      const tag = digest.replace(":", "-");
      const { body } = await get(`/v2/${repository}/manifests/${tag}`, manifestTypes);
      return JSON.parse(body.toString()).manifests;
    },
  };
  return view;
}

/** Not every config is an image's, or JSON. */
function diffIdsIn(config: Buffer | undefined): readonly string[] {
  const text = config?.toString() ?? "";
  const document: unknown = text.startsWith("{") ? JSON.parse(text) : {};
  return (document as { rootfs?: { diff_ids?: string[] } }).rootfs?.diff_ids ?? [];
}

/** A token for these repositories, from the registry's own token server; its login where it has none. */
async function authorize(
  { tokens, username, password }: Partial<DockerRegistry>,
  repositories: readonly string[],
): Promise<string | undefined> {
  const login = Buffer.from(`${username}:${password}`).toString("base64");
  if (tokens === undefined) return username === undefined ? undefined : `Basic ${login}`;
  const url = new URL(tokens.realm);
  url.searchParams.set("service", tokens.service);
  for (const name of repositories) url.searchParams.append("scope", `repository:${name}`);
  const { body } = await plainRequest(url.href, { headers: { authorization: `Basic ${login}` } });
  return `Bearer ${JSON.parse(body.toString()).token}`;
}
