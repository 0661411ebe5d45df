import {
  acceptAll,
  blobOf,
  describe,
  descriptorOf,
  emptyObject,
  manifestOf,
  mediaTypes,
  putBlob,
  putImage,
  putManifest,
} from "../content.ts";
import { type Chapter, chapter } from "../workflow.ts";

/** Registries may have deletes off, and some can't delete a tag. */
const deleted = [202, 400, 405];
const accept = { accept: acceptAll };

export const management: Chapter = chapter("Content management", {
  async "a tag"(talk) {
    const { digest } = await putImage(talk, "v1", "image");
    await putImage(talk, "v2", "image");
    const { status } = await talk.send("DELETE", "manifests/v1", { allow: [...deleted, 404] });
    const allow = status === 202 ? [404] : [200];
    await talk.send("GET", "manifests/v1", { headers: accept, allow });
    await talk.send("GET", "manifests/v2", { headers: accept, allow: [200] });
    await talk.send("GET", `manifests/${digest}`, { headers: accept, allow: [200] });
    await talk.send("GET", "tags/list", { allow: [200] });
  },

  async "a manifest with its tags"(talk) {
    const { digest } = await putImage(talk, "v1", "image");
    await putImage(talk, "v2", "image");
    await putImage(talk, "v3", "another");
    const { status } = await talk.send("DELETE", `manifests/${digest}`, { allow: deleted });
    const allow = status === 202 ? [404] : [200];
    for (const reference of [digest, "v1", "v2"]) {
      await talk.send("GET", `manifests/${reference}`, { headers: accept, allow });
    }
    await talk.send("GET", "tags/list", { allow: [200] });
    await talk.send("DELETE", `manifests/${digest}`, { allow: [404, 405, 400] });
  },

  async "a blob"(talk) {
    const { digest } = blobOf("deleted");
    await putBlob(talk, blobOf("deleted"));
    const { status } = await talk.send("DELETE", `blobs/${digest}`, { allow: deleted });
    const allow = status === 202 ? [404] : [200];
    for (const method of ["HEAD", "GET"]) await talk.send(method, `blobs/${digest}`, { allow });
    await talk.send("DELETE", `blobs/${digest}`, { allow: [404, 405, 400] });
  },

  async "a referrer"(talk) {
    const subject = await putImage(talk, "v1");
    await putBlob(talk, emptyObject);
    const empty = describe(emptyObject, mediaTypes.empty);
    const referrer = manifestOf({
      mediaType: mediaTypes.manifest,
      ...{ config: empty, layers: [empty], subject: descriptorOf(subject) },
    });
    await putManifest(talk, referrer.digest, referrer);
    await talk.send("DELETE", `manifests/${referrer.digest}`, { allow: deleted });
    await talk.send("GET", `referrers/${subject.digest}`, { allow: [200, 404] });
  },

  async "what is not there"(talk) {
    const { digest } = blobOf("nobody has this");
    for (const what of [`manifests/${digest}`, "manifests/v1", `blobs/${digest}`]) {
      await talk.send("DELETE", what, { allow: [404, 405, 400] });
    }
    await putImage(talk, "v2");
    for (const what of [`manifests/${digest}`, "manifests/v1", `blobs/${digest}`]) {
      await talk.send("DELETE", what, { allow: [404, 405, 400, 202] });
    }
  },
});
