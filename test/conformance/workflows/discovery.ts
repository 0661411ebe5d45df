import {
  acceptAll,
  blobOf,
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
} from "../content.ts";
import type { Talk } from "../talk.ts";
import { type Chapter, chapter } from "../workflow.ts";

const tagNames = ["1.0", "1.1", "2.0", "Latest", "latest", "test-1", "test_2"];

async function putTags(talk: Talk): Promise<void> {
  const image = await imageOf(talk, "tags");
  for (const tag of tagNames) await putManifest(talk, tag, image);
}

/** Turns the pages of a list, as far as there are any. */
async function turnPages(talk: Talk, where: string): Promise<void> {
  let next: string | undefined = where;
  for (let page = 0; next !== undefined; page += 1) {
    if (page > 20) throw new Error("the pages have no end");
    ({ next } = await talk.send("GET", next, { allow: [200, 404] }));
  }
}

export const tags: Chapter = chapter("Content discovery: tags", {
  async "all of them"(talk) {
    await putTags(talk);
    await talk.send("GET", "tags/list", { allow: [200] });
    await talk.send("HEAD", "tags/list", { allow: [200, 405] });
  },

  async "some of them, with n and last"(talk) {
    await putTags(talk);
    for (const query of ["n=3", "last=1.1", "n=2&last=2.0", "n=0", "n=100", "last=zzz", "n=7"]) {
      await talk.send("GET", `tags/list?${query}`, { allow: [200, 400] });
    }
  },

  async "page after page, by Link"(talk) {
    await putTags(talk);
    await turnPages(talk, "tags/list?n=2");
  },

  async "with an n that is none"(talk) {
    await putTags(talk);
    for (const query of ["n=abc", "n=-1", "n=", "n=99999999999"]) {
      const allow = query.includes("9") ? [200, 400] : [400, 200];
      await talk.send("GET", `tags/list?${query}`, { allow: query === "n=" ? [200, 400] : allow });
    }
  },

  async "of a repository without any"(talk) {
    await talk.send("GET", "tags/list", { allow: [404] });
    await putBlob(talk, blobOf("tagless"));
    await talk.send("GET", "tags/list", { allow: [200, 404] });
  },
});

const annotations = { "org.example.format": "json" };

/** An artifact that refers to a manifest. */
function referrer(subject: Manifest, name: string, document: object = {}): Manifest {
  const empty = describe(emptyObject, mediaTypes.empty);
  return manifestOf({
    mediaType: mediaTypes.manifest,
    artifactType: mediaTypes.example,
    config: empty,
    layers: [empty],
    subject: descriptorOf(subject),
    annotations: { ...annotations, name },
    ...document,
  } as { readonly mediaType: string });
}

/** Registries without this API answer 404 (distribution-spec 1.1, "Unavailable Referrers API"). */
const listed = [200, 404];

async function putReferrers(talk: Talk): Promise<Manifest> {
  const subject = await putImage(talk, "v1");
  await putBlob(talk, emptyObject);
  const made = [
    referrer(subject, "one"),
    referrer(subject, "two"),
    referrer(subject, "three", { artifactType: "application/vnd.example.signature.v1" }),
    referrer(subject, "four", { artifactType: undefined }),
    referrer(subject, "five", {
      mediaType: mediaTypes.index,
      manifests: [descriptorOf(subject)],
      ...{ config: undefined, layers: undefined },
    }),
  ];
  for (const manifest of made) await putManifest(talk, manifest.digest, manifest);
  return subject;
}

const fallbackTag = ({ digest }: Manifest): string => digest.replace(":", "-");

export const referrers: Chapter = chapter("Content discovery: referrers", {
  async "all of them"(talk) {
    const { digest } = await putReferrers(talk);
    await turnPages(talk, `referrers/${digest}`);
    await talk.send("HEAD", `referrers/${digest}`, { allow: [200, 404, 405] });
  },

  async "those of one type"(talk) {
    const { digest } = await putReferrers(talk);
    for (const type of [mediaTypes.example, mediaTypes.empty, "application/vnd.nobody+json"]) {
      await turnPages(talk, `referrers/${digest}?artifactType=${encodeURIComponent(type)}`);
      await turnPages(talk, `referrers/${digest}?artifactType=${type}`);
    }
  },

  async "of a manifest that nobody refers to"(talk) {
    const { digest } = await putImage(talk, "v1");
    await talk.send("GET", `referrers/${digest}`, { allow: listed });
  },

  async "of a manifest that is not there, or not yet"(talk) {
    await putBlob(talk, emptyObject);
    const later = manifestOf({ mediaType: mediaTypes.manifest, ...{ annotations } });
    await talk.send("GET", `referrers/${later.digest}`, { allow: listed });
    const early = referrer(later, "early");
    await putManifest(talk, "early", early);
    await talk.send("GET", `referrers/${later.digest}`, { allow: listed });
  },

  async "of something that is no digest"(talk) {
    await putImage(talk, "v1");
    await talk.send("GET", "referrers/sha256:baddigeststring", { allow: [400, 404, 200] });
    await talk.send("GET", "referrers/v1", { allow: [400, 404], isFree: true });
  },

  async "by the tag that stands in for the API"(talk) {
    const subject = await putImage(talk, "v1");
    await putBlob(talk, emptyObject);
    const tag = fallbackTag(subject);
    const headers = { accept: acceptAll };
    await talk.send("GET", `manifests/${tag}`, { headers, allow: [404] });
    const found: Manifest[] = [];
    for (const name of ["one", "two"]) {
      const manifest = referrer(subject, name);
      await putManifest(talk, manifest.digest, manifest);
      found.push(manifest);
      const list = manifestOf({
        mediaType: mediaTypes.index,
        ...{ manifests: found.map(descriptorOf) },
      });
      const known = await talk.send("GET", `manifests/${tag}`, {
        headers,
        allow: name === "one" ? [404] : [200],
      });
      const { etag } = known.headers;
      const condition = etag === undefined ? {} : { "if-match": etag };
      await talk.send("PUT", `manifests/${tag}`, {
        headers: { "content-type": mediaTypes.index, ...condition },
        body: list.bytes,
        allow: [201],
      });
    }
    await talk.send("GET", `manifests/${tag}`, { headers, allow: [200] });
  },
});

export const catalog: Chapter = chapter("Content discovery: repositories", {
  async "all of them"(talk) {
    await putImage(talk, "v1");
    await putBlob(talk, blobOf("catalog"), talk.other);
    await talk.send("GET", "/_catalog?n=1000", { allow: [200] });
  },

  async "page after page, by Link"(talk) {
    await putImage(talk, "v1");
    await putBlob(talk, blobOf("catalog"), talk.other);
    await turnPages(talk, "/_catalog?n=15");
  },

  async "after another one"(talk) {
    await putImage(talk, "v1");
    const last = encodeURIComponent(talk.repository);
    await talk.send("GET", `/_catalog?n=3&last=${last}`, { allow: [200] });
    await talk.send("GET", "/_catalog?n=0", { allow: [200, 400] });
  },
});
