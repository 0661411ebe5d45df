import {
  acceptAll,
  blobOf,
  imageOf,
  mediaTypes,
  putBlob,
  putImage,
  putManifest,
  readBlob,
  readManifest,
} from "../content.ts";
import type { Talk } from "../talk.ts";
import { type Chapter, chapter } from "../workflow.ts";

const absent = blobOf("nobody has this");

export const pull: Chapter = chapter("Pull", {
  async "support of the API"(talk) {
    await talk.send("GET", "/", { allow: [200] });
    await talk.send("HEAD", "/", { allow: [200] });
  },

  async "a repository that does not exist"(talk) {
    for (const method of ["HEAD", "GET"]) {
      await talk.send(method, "manifests/latest", { allow: [404] });
      await talk.send(method, `blobs/${absent.digest}`, { allow: [404] });
    }
    await talk.send("GET", "tags/list", { allow: [404] });
  },

  async "a blob"(talk) {
    const blob = blobOf("pull");
    await putBlob(talk, blob);
    await readBlob(talk, blob.digest);
    await talk.send("GET", `blobs/${blob.digest}`, {
      headers: { "accept-encoding": "gzip" },
      allow: [200],
    });
  },

  async "a blob of 3 MiB"(talk) {
    const blob = blobOf("large", 3 * 1024 * 1024);
    await putBlob(talk, blob);
    await readBlob(talk, blob.digest);
  },

  async "a blob that is not there"(talk) {
    await putBlob(talk, blobOf("pull"));
    for (const method of ["HEAD", "GET"]) {
      await talk.send(method, `blobs/${absent.digest}`, { allow: [404] });
      await talk.send(method, "blobs/sha256:deadbeef", { allow: [404, 400], isFree: true });
    }
  },

  async "a manifest by its tag and by its digest"(talk) {
    const { digest } = await putImage(talk, "v1");
    await readManifest(talk, "v1");
    await readManifest(talk, digest);
  },

  async "a manifest that is not there"(talk) {
    await putImage(talk, "v1");
    const references = ["v2", absent.digest, "sha256:baddigeststring", "UPPER_case.1-x"];
    for (const method of ["HEAD", "GET"]) {
      for (const reference of references) {
        const allow = [404, 400, 500]; // docker-registry 2.8 fails over the digest that is none
        await talk.send(method, `manifests/${reference}`, { allow });
      }
    }
  },

  async "a manifest in the types that a client accepts"(talk) {
    const image = await imageOf(talk, "types");
    await putManifest(talk, "v1", image);
    const accepted = [mediaTypes.manifest, acceptAll, "*/*", "application/json", "text/plain"];
    for (const accept of accepted) {
      await talk.send("GET", "manifests/v1", { headers: { accept }, allow: [200, 404, 406] });
    }
    await talk.send("GET", "manifests/v1", { allow: [200, 404] });
  },

  async "what mirrors add to a request"(talk) {
    const { digest } = await putImage(talk, "v1");
    const headers = { accept: acceptAll };
    for (const reference of ["v1", digest]) {
      await talk.send("GET", `manifests/${reference}?ns=docker.io`, { headers, allow: [200] });
    }
    await talk.send("GET", `blobs/${absent.digest}?ns=docker.io`, { allow: [404] });
  },

  async "tags of every form"(talk) {
    const image = await imageOf(talk, "tags");
    for (const tag of ["a", "_a", "A.b-C_d", "1.0", "x".repeat(128)]) {
      await putManifest(talk, tag, image);
      await readManifest(talk, tag);
    }
  },
});

const size = 2048;

const ranges: Readonly<Record<string, readonly number[]>> = {
  "bytes=500-1499": [206, 200],
  "bytes=0-0": [206, 200],
  "bytes=500-": [206, 200],
  "bytes=-500": [206, 200],
  "bytes=2000-5000": [206, 200],
  "bytes=-5000": [206, 200],
  "bytes=500-0": [416, 200],
  "bytes=2048-": [416, 200],
  "bytes=5000-10000": [416, 200],
  "bytes=0-9,100-109,-10": [200, 206],
  "bytes=0-99,5000-6000": [200, 206],
  "items=0-9": [200, 416],
  nonsense: [200, 416],
};

const withBlob = (ask: (talk: Talk, where: string) => Promise<void>) => async (talk: Talk) => {
  const blob = blobOf("ranges", size);
  await putBlob(talk, blob);
  await ask(talk, `blobs/${blob.digest}`);
};

export const partial: Chapter = chapter("Pull: ranges and conditions", {
  ...Object.fromEntries(
    Object.entries(ranges).map(([range, allow]) => [
      `the range ${range}`,
      withBlob(async (talk, where) => {
        await talk.send("GET", where, { headers: { range }, allow });
      }),
    ]),
  ),

  "a range of HEAD": withBlob(async (talk, where) => {
    await talk.send("HEAD", where, { headers: { range: "bytes=0-9" }, allow: [206, 200] });
  }),

  "a range of what has not changed": withBlob(async (talk, where) => {
    const { headers } = await talk.send("HEAD", where, { allow: [200] });
    for (const etag of [String(headers.etag), '"another"']) {
      const conditions = { range: "bytes=500-", "if-range": etag };
      const allow = etag === '"another"' ? [200] : [206, 200];
      await talk.send("GET", where, { headers: conditions, allow });
    }
  }),

  "a blob unless the client has it": withBlob(async (talk, where) => {
    const { headers } = await talk.send("HEAD", where, { allow: [200] });
    const etag = String(headers.etag);
    for (const method of ["GET", "HEAD"]) {
      const known = { "if-none-match": etag };
      await talk.send(method, where, { headers: known, allow: [304, 200] });
      const other = { "if-none-match": '"another"' };
      await talk.send(method, where, { headers: other, allow: [200] });
    }
  }),

  async "a manifest unless the client has it"(talk) {
    await putImage(talk, "v1");
    const accept = acceptAll;
    const { headers } = await talk.send("HEAD", "manifests/v1", {
      headers: { accept },
      allow: [200],
    });
    for (const method of ["GET", "HEAD"]) {
      for (const etag of [String(headers.etag), '"another"']) {
        const allow = etag === '"another"' ? [200] : [304, 200];
        const conditions = { accept, "if-none-match": etag };
        await talk.send(method, "manifests/v1", { headers: conditions, allow });
      }
    }
  },
});
