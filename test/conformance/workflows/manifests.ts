import {
  blobOf,
  blobWith,
  describe,
  descriptorOf,
  emptyObject,
  imageOf,
  type Manifest,
  manifestOf,
  mediaTypes,
  putBlob,
  putImage,
  putManifest,
  readManifest,
} from "../content.ts";
import type { Talk } from "../talk.ts";
import { type Chapter, chapter } from "../workflow.ts";

/** Pushes a manifest by its tag and by its digest, and reads it by both. */
async function pushAndPull(talk: Talk, manifest: Manifest): Promise<void> {
  await putManifest(talk, "v1", manifest);
  await putManifest(talk, manifest.digest, manifest);
  await readManifest(talk, "v1");
  await readManifest(talk, manifest.digest);
}

const { index, manifest: image } = mediaTypes;

const indexOf = (manifests: readonly Manifest[], more: object = {}): Manifest =>
  manifestOf({ mediaType: index, ...{ manifests: manifests.map(descriptorOf) }, ...more });

export const manifests: Chapter = chapter("Push: manifests", {
  async "an image by its tag and by its digest"(talk) {
    await pushAndPull(talk, await imageOf(talk, "image"));
  },

  async "a tag that moves"(talk) {
    await putImage(talk, "latest", "before");
    await readManifest(talk, "latest");
    await putImage(talk, "latest", "after");
    await readManifest(talk, "latest");
  },

  async "a digest with tags beside it"(talk) {
    const manifest = await imageOf(talk, "tags");
    const tags = ["1.2.3", "1.2", "1", "latest"].map((tag) => `tag=${tag}`).join("&");
    await putManifest(talk, `${manifest.digest}?${tags}`, manifest);
    await talk.send("GET", "tags/list", { allow: [200, 404] });
  },

  async "of unknown length"(talk) {
    const { bytes, mediaType } = await imageOf(talk, "chunked");
    const headers = { "content-type": mediaType };
    const request = { headers, body: bytes, chunked: true, allow: [201] };
    await talk.send("PUT", "manifests/v1", request);
    await readManifest(talk, "v1");
  },

  async "with parameters of its type"(talk) {
    const { bytes, mediaType } = await imageOf(talk, "parameters");
    const headers = { "content-type": `${mediaType}; charset=utf-8` };
    await talk.send("PUT", "manifests/v1", { headers, body: bytes, allow: [201, 400, 415] });
  },

  async "unless the tag is there"(talk) {
    const { bytes, mediaType } = await imageOf(talk, "unless");
    const headers = { "content-type": mediaType, "if-none-match": "*" };
    for (const allow of [[201], [412, 201]]) {
      await talk.send("PUT", "manifests/v1", { headers, body: bytes, allow });
    }
  },

  async "with a field that nobody knows, and data in a descriptor"(talk) {
    const config = blobWith(JSON.stringify({ architecture: "amd64", os: "linux", x: 1 }));
    const layer = blobOf("data");
    for (const blob of [config, layer]) await putBlob(talk, blob);
    const data = config.bytes.toString("base64");
    const document = {
      mediaType: image,
      config: { ...describe(config, mediaTypes.config), data },
      layers: [describe(layer, mediaTypes.layer)],
      "org.example.unknown": { a: [1, "ü"] },
    };
    await pushAndPull(talk, manifestOf(document));
  },

  async "without layers"(talk) {
    const config = blobWith(JSON.stringify({ architecture: "amd64", os: "linux", layers: 0 }));
    await putBlob(talk, config);
    const document = {
      mediaType: image,
      config: describe(config, mediaTypes.config),
      layers: [],
    };
    await pushAndPull(talk, manifestOf(document));
  },

  async "with layers that may not be copied"(talk) {
    const config = blobWith(JSON.stringify({ architecture: "amd64", os: "windows" }));
    await putBlob(talk, config);
    const foreign = describe(blobOf("foreign"), mediaTypes.foreignLayer);
    const urls = [`https://store.example.com/blobs/${foreign.digest}`];
    const manifest = manifestOf({
      mediaType: image,
      ...{ config: describe(config, mediaTypes.config), layers: [{ ...foreign, urls }] },
    });
    const allow = [201, 400, 404, 500]; // distribution fails over them
    await putManifest(talk, "v1", manifest, allow);
  },

  async "of Docker's own kind, and a list of them"(talk) {
    const config = blobWith(JSON.stringify({ architecture: "amd64", os: "linux", docker: 1 }));
    const layer = blobOf("docker");
    for (const blob of [config, layer]) await putBlob(talk, blob);
    const manifest = manifestOf({
      mediaType: mediaTypes.dockerManifest,
      ...{ config: describe(config, mediaTypes.dockerConfig) },
      ...{ layers: [describe(layer, mediaTypes.dockerLayer)] },
    });
    await pushAndPull(talk, manifest);
    const platform = { architecture: "amd64", os: "linux" };
    const list = manifestOf({
      mediaType: mediaTypes.dockerList,
      ...{ manifests: [{ ...descriptorOf(manifest), platform }] },
    });
    await pushAndPull(talk, list);
  },

  async "an index of two platforms"(talk) {
    const platforms = [await putImage(talk, "amd64"), await putImage(talk, "arm64")];
    await pushAndPull(talk, indexOf(platforms));
  },

  async "an index of indexes"(talk) {
    const inner = indexOf([await putImage(talk, "amd64")]);
    await putManifest(talk, inner.digest, inner);
    await pushAndPull(talk, indexOf([inner]));
  },

  async "an empty index"(talk) {
    await putManifest(talk, "v1", indexOf([]), [201, 400]);
    await talk.send("GET", "manifests/v1", { headers: { accept: index }, allow: [200, 404] });
  },

  async "of nearly 4 MiB"(talk) {
    const size = 10_000;
    const annotations = Object.fromEntries(
      Array.from({ length: 400 }, (_, at) => [`large-${at}`, "A".repeat(size)]),
    );
    const config = blobWith(JSON.stringify({ architecture: "amd64", os: "linux", large: 1 }));
    await putBlob(talk, config);
    const document = { mediaType: image, config: describe(config, mediaTypes.config) };
    await pushAndPull(talk, manifestOf({ ...document, ...{ layers: [], annotations } }));
  },

  async "of more than 4 MiB"(talk) {
    await putBlob(talk, emptyObject);
    // Not by much: a registry that leaves a rest unread resets the connection, and its answer may get lost.
    const annotations = { large: "A".repeat(4 * 1024 * 1024) };
    const document = { mediaType: image, layers: [], annotations };
    await putManifest(talk, "v1", manifestOf(document), [413, 400]);
    await talk.send("GET", "manifests/v1", { allow: [404] });
  },

  async "of more than 8 MiB"(talk) {
    await putBlob(talk, emptyObject);
    const annotations = { large: "A".repeat(8 * 1024 * 1024) };
    const document = { mediaType: image, layers: [], annotations };
    await putManifest(talk, "v1", manifestOf(document), [413, 400, 0]);
    await talk.send("GET", "manifests/v1", { allow: [404] });
  },

  async "by a sha512 digest"(talk) {
    const config = blobWith(JSON.stringify({ architecture: "amd64", os: "linux" }), "sha512");
    const layer = blobOf("sha512", 512, "sha512");
    for (const blob of [config, layer]) await putBlob(talk, blob);
    const document = {
      mediaType: image,
      config: describe(config, mediaTypes.config),
      layers: [describe(layer, mediaTypes.layer)],
    };
    const manifest = manifestOf(document, "sha512");
    await putManifest(talk, manifest.digest, manifest, [201, 400, 404]);
    const headers = { accept: image };
    await talk.send("GET", `manifests/${manifest.digest}`, { headers, allow: [200, 400, 404] });
  },

  async "with a blob or a manifest that is not there"(talk) {
    const missing = describe(blobOf("missing"), mediaTypes.layer);
    const document = { mediaType: image, config: missing, layers: [missing] };
    await putManifest(talk, "v1", manifestOf(document), [400, 404, 201]);
    const gone = manifestOf({ mediaType: image, ...{ layers: [] } });
    await putManifest(talk, "v2", indexOf([gone]), [400, 404, 201]);
  },

  async "by another one's digest, or by none"(talk) {
    const manifest = await imageOf(talk, "digests");
    for (const digest of [blobOf("other").digest, "sha256:baddigeststring"]) {
      await putManifest(talk, digest, manifest, [400, 500]);
    }
  },

  async "that is none, or of another type"(talk) {
    const manifest = await imageOf(talk, "types");
    const headers = { "content-type": image };
    for (const text of ["", "no JSON", "[]"]) {
      const body = Buffer.from(text);
      await talk.send("PUT", "manifests/v1", { headers, body, allow: [400] });
    }
    await putManifest(talk, "v1", { ...manifest, mediaType: index }, [400, 201]);
  },
});

const artifactTypes = { artifactType: mediaTypes.example };

export const artifacts: Chapter = chapter("Push: artifacts", {
  async "with a configuration of its own type"(talk) {
    const config = blobWith('{"artifact":"configuration"}');
    const layer = blobOf("artifact");
    for (const blob of [config, layer]) await putBlob(talk, blob);
    const document = {
      mediaType: image,
      config: describe(config, "application/vnd.example.config.v1+json"),
      layers: [describe(layer, mediaTypes.example)],
    };
    await pushAndPull(talk, manifestOf(document));
  },

  async "with an empty configuration"(talk) {
    const layer = blobOf("artifact without configuration");
    for (const blob of [emptyObject, layer]) await putBlob(talk, blob);
    const document = {
      ...{ mediaType: image, ...artifactTypes },
      config: describe(emptyObject, mediaTypes.empty),
      layers: [describe(layer, mediaTypes.example)],
    };
    await pushAndPull(talk, manifestOf(document));
  },

  async "without layers"(talk) {
    await putBlob(talk, emptyObject);
    const empty = describe(emptyObject, mediaTypes.empty);
    const document = { mediaType: image, ...artifactTypes, config: empty, layers: [empty] };
    await pushAndPull(talk, manifestOf(document));
  },

  async "an index of artifacts"(talk) {
    await putBlob(talk, emptyObject);
    const empty = describe(emptyObject, mediaTypes.empty);
    const document = { mediaType: image, ...artifactTypes, config: empty, layers: [empty] };
    const artifact = manifestOf(document);
    await putManifest(talk, artifact.digest, artifact);
    await pushAndPull(talk, indexOf([artifact], artifactTypes));
  },
});
