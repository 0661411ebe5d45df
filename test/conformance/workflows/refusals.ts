import { blobOf, imageOf, putImage, putManifest } from "../content.ts";
import { type Chapter, chapter } from "../workflow.ts";

const { digest } = blobOf("refused");

/** What a registry refuses, and the proxy by itself: where it does, its answer is its own. */
export const refusals: Chapter = chapter("Refusals", {
  async "somebody without a login"(talk) {
    const allow = [401, 200];
    await talk.send("GET", "/", { login: "none", allow });
    await talk.send("GET", "tags/list", { login: "none", allow: [401, 404] });
    await talk.send("POST", "blobs/uploads/", { login: "none", allow: [401, 202] });
  },

  async "somebody with a wrong login"(talk) {
    await talk.send("GET", "tags/list", { login: "wrong", allow: [401, 404] });
    await talk.send("PUT", "manifests/v1", {
      login: "wrong",
      body: Buffer.from("{}"),
      allow: [401, 400],
    });
  },

  async "a repository that may only be read"(talk) {
    const where = `/read-only/${talk.repository}`;
    const allow = [401, 403, 202, 404, 405];
    await talk.send("GET", `${where}/manifests/v1`, { allow: [404] });
    await talk.send("POST", `${where}/blobs/uploads/`, { allow, isFree: true });
    await talk.send("DELETE", `${where}/blobs/${digest}`, { allow, isFree: true });
  },

  async "methods that a path does not have"(talk) {
    await putImage(talk, "v1");
    const allow = [405, 404];
    for (const [method, where] of [
      ["POST", "manifests/v1"],
      ["PUT", `blobs/${digest}`],
      ["PATCH", `blobs/${digest}`],
      ["PUT", "tags/list"],
      ["DELETE", "tags/list"],
    ] as const) {
      await talk.send(method, where, { allow, isFree: true });
    }
  },

  async "names that are none"(talk) {
    const allow = [404, 400, 301];
    for (const name of ["UPPER", "a..b", "-a", "a_", "a//b"]) {
      await talk.send("GET", `/conformance/${name}/tags/list`, { allow });
    }
    for (const reference of [".v1", "-v1", "x".repeat(129)]) {
      await talk.send("GET", `manifests/${reference}`, { allow });
    }
    await talk.send("GET", "blobs/latest", { allow: [400, 404], isFree: true });
  },

  async "paths that are none"(talk) {
    const allow = [404];
    for (const where of ["", "tags", "manifests/", "nothing/v1", "tags/list/x"]) {
      await talk.send("GET", where, { allow });
    }
  },

  async "long names"(talk) {
    const long = `${talk.repository}/${"a/".repeat(60)}`.slice(0, 200).replace(/\/$/, "");
    await talk.send("GET", `/${long}/tags/list`, { allow: [404] });
  },

  async "a colon that is encoded"(talk) {
    const image = await imageOf(talk, "encoded");
    await putManifest(talk, "v1", image);
    const where = `manifests/${encodeURIComponent(image.digest)}`;
    await talk.send("GET", where, {
      headers: { accept: image.mediaType },
      allow: [200, 404],
      isFree: true,
    });
  },
});
