import {
  type Algorithm,
  blobOf,
  blobWith,
  type Content,
  digestOf,
  finishing,
  putBlob,
  readBlob,
} from "../content.ts";
import type { Talk } from "../talk.ts";
import { type Chapter, chapter, type Workflow } from "../workflow.ts";

const begin = (talk: Talk, query = ""): Promise<{ readonly location: string }> =>
  talk.send("POST", `blobs/uploads/${query}`, { allow: [202] });

const octets = { "content-type": "application/octet-stream" };

/** A blob that was made for one algorithm, in each of the ways in which it can be pushed. */
function waysToPush(algorithm: Algorithm): Readonly<Record<string, Workflow["run"]>> {
  const blob = (name: string, size?: number): Content => blobOf(name, size, algorithm);
  const query = algorithm === "sha256" ? "" : `?digest-algorithm=${algorithm}`;
  return {
    async [`${algorithm}: POST, then PUT`](talk) {
      const { bytes, digest } = blob("post put");
      const { location } = await begin(talk);
      await talk.send("PUT", finishing(location, digest), {
        headers: octets,
        body: bytes,
        allow: [201],
      });
      await readBlob(talk, digest);
    },

    async [`${algorithm}: PUT of unknown length`](talk) {
      const { bytes, digest } = blob("put chunked", 100_000);
      const { location } = await begin(talk);
      await talk.send("PUT", finishing(location, digest), {
        body: bytes,
        chunked: true,
        allow: [201],
      });
      await readBlob(talk, digest);
    },

    async [`${algorithm}: POST alone`](talk) {
      const { bytes, digest } = blob("post");
      const where = `blobs/uploads/?digest=${encodeURIComponent(digest)}`;
      const posted = await talk.send("POST", where, {
        headers: octets,
        body: bytes,
        allow: [201, 202],
      });
      if (posted.status === 202) {
        await talk.send("PUT", finishing(posted.location, digest), { body: bytes, allow: [201] });
      }
      await talk.send("GET", posted.status === 201 ? posted.location : `blobs/${digest}`, {
        allow: [200],
      });
    },

    async [`${algorithm}: one chunk`](talk) {
      const { bytes, digest } = blob("one chunk");
      const { location } = await begin(talk, query);
      const headers = { ...octets, "content-range": `0-${bytes.length - 1}` };
      const patched = await talk.send("PATCH", location, { headers, body: bytes, allow: [202] });
      await talk.send("PUT", finishing(patched.location, digest), { allow: [201] });
      await readBlob(talk, digest);
    },

    async [`${algorithm}: three chunks`](talk) {
      const { bytes, digest } = blob("chunks", 300_000);
      const location = await sendChunks(talk, await begin(talk, query), bytes, 3);
      await talk.send("PUT", finishing(location, digest), { allow: [201] });
      await readBlob(talk, digest);
    },

    async [`${algorithm}: three chunks, the last by PUT`](talk) {
      const { bytes, digest } = blob("chunks and put", 300_000);
      const location = await sendChunks(talk, await begin(talk, query), bytes, 2);
      const headers = { ...octets, "content-range": "200000-299999" };
      const body = bytes.subarray(200_000);
      await talk.send("PUT", finishing(location, digest), { headers, body, allow: [201] });
      await readBlob(talk, digest);
    },

    async [`${algorithm}: streamed`](talk) {
      const { bytes, digest } = blob("stream", 300_000);
      const { location } = await begin(talk, query);
      const stream = { headers: octets, body: bytes, chunked: true };
      const patched = await talk.send("PATCH", location, { ...stream, allow: [202] });
      await talk.send("PUT", finishing(patched.location, digest), { allow: [201] });
      await readBlob(talk, digest);
    },

    async [`${algorithm}: an empty blob, and an empty object`](talk) {
      for (const text of ["", "{}"]) {
        const { bytes, digest } = blobWith(text, algorithm);
        const { location } = await begin(talk);
        await talk.send("PUT", finishing(location, digest), { body: bytes, allow: [201] });
        await readBlob(talk, digest);
      }
    },

    async [`${algorithm}: a digest that is another one's`](talk) {
      const { bytes } = blob("bad digest");
      const { digest } = blob("good digest");
      const bad = [400];
      const once = `blobs/uploads/?digest=${encodeURIComponent(digest)}`;
      const posted = await talk.send("POST", once, { body: bytes, allow: [400, 202] });
      if (posted.status === 202) {
        await talk.send("PUT", finishing(posted.location, digest), { body: bytes, allow: bad });
      }
      const { location } = await begin(talk);
      await talk.send("PUT", finishing(location, digest), { body: bytes, allow: bad });
      const { location: other } = await begin(talk);
      const patched = await talk.send("PATCH", other, { body: bytes, allow: [202] });
      await talk.send("PUT", finishing(patched.location, digest), { allow: bad });
      await talk.send("GET", `blobs/${digest}`, { allow: [404] });
    },
  };
}

const chunkSize = 100_000;

/** @returns where the upload goes on */
async function sendChunks(
  talk: Talk,
  begun: { readonly location: string },
  bytes: Buffer,
  count: number,
): Promise<string> {
  let { location } = begun;
  for (let start = 0; start < count * chunkSize; start += chunkSize) {
    const body = bytes.subarray(start, start + chunkSize);
    const headers = { ...octets, "content-range": `${start}-${start + body.length - 1}` };
    ({ location } = await talk.send("PATCH", location, { headers, body, allow: [202] }));
  }
  return location;
}

export const blobs: Chapter = chapter("Push: blobs", {
  ...waysToPush("sha256"),
  ...waysToPush("sha512"),

  async "a blob that is there already"(talk) {
    const blob = blobOf("twice");
    await putBlob(talk, blob);
    await putBlob(talk, blob);
  },

  async "no digest, one that is none, and one of an unknown kind"(talk) {
    const { bytes } = blobOf("digests");
    const { location } = await begin(talk);
    await talk.send("PUT", location, { body: bytes, allow: [400] });
    for (const digest of ["sha256:0", "nothing", `md5:${"0".repeat(32)}`]) {
      const again = await begin(talk);
      await talk.send("PUT", finishing(again.location, digest), { body: bytes, allow: [400] });
    }
  },
});

/** Some registries take whatever comes next for the next chunk. */
const outOfOrder = [416, 202];

export const uploads: Chapter = chapter("Push: uploads that are under way", {
  async "the status of an upload"(talk) {
    const { bytes } = blobOf("status", 200_000);
    const begun = await begin(talk);
    const first = await talk.send("GET", begun.location, { allow: [204] });
    const location = await sendChunks(talk, first, bytes, 2);
    const second = await talk.send("GET", location, { allow: [204] });
    await talk.send("HEAD", second.location, { allow: [204, 405] });
  },

  async "a first chunk that is not the first"(talk) {
    const { bytes, digest } = blobOf("order", 200_000);
    const { location } = await begin(talk);
    const headers = { "content-range": "100000-199999" };
    const wrong = { headers, body: bytes.subarray(100_000), allow: outOfOrder };
    const { status } = await talk.send("PATCH", location, wrong);
    if (status !== 416) return;
    const found = await talk.send("GET", location, { allow: [204] });
    const goesOn = await sendChunks(talk, found, bytes, 2);
    await talk.send("PUT", finishing(goesOn, digest), { allow: [201] });
    await readBlob(talk, digest);
  },

  async "a chunk that is sent twice"(talk) {
    const { bytes, digest } = blobOf("twice", 200_000);
    const location = await sendChunks(talk, await begin(talk), bytes, 1);
    const headers = { "content-range": "0-99999" };
    const again = { headers, body: bytes.subarray(0, 100_000), allow: outOfOrder };
    const { status } = await talk.send("PATCH", location, again);
    if (status !== 416) return;
    const found = await talk.send("GET", location, { allow: [204] });
    const last = { headers: { "content-range": "100000-199999" }, body: bytes.subarray(100_000) };
    const patched = await talk.send("PATCH", found.location, { ...last, allow: [202] });
    await talk.send("PUT", finishing(patched.location, digest), { allow: [201] });
  },

  async "a last chunk by PUT that is not the next"(talk) {
    const { bytes, digest } = blobOf("last", 200_000);
    const location = await sendChunks(talk, await begin(talk), bytes, 1);
    const headers = { "content-range": "50000-149999" };
    const body = bytes.subarray(100_000);
    await talk.send("PUT", finishing(location, digest), {
      headers,
      body,
      allow: [416, 201, 400],
    });
  },

  async "a Content-Range that is none"(talk) {
    const { location } = await begin(talk);
    const headers = { "content-range": "nonsense" };
    await talk.send("PATCH", location, {
      headers,
      body: Buffer.from("x"),
      allow: [416, 400, 202, 500],
    });
  },

  async "an upload that is ended"(talk) {
    const { bytes, digest } = blobOf("ended", 100_000);
    const begun = await begin(talk);
    await talk.send("DELETE", begun.location, { allow: [204] });
    const location = await sendChunks(talk, await begin(talk), bytes, 1);
    await talk.send("DELETE", location, { allow: [204] });
    await talk.send("GET", location, { allow: [404] });
    await talk.send("PATCH", location, { body: bytes, allow: [404] });
    await talk.send("PUT", finishing(location, digest), { allow: [404] });
    await talk.send("DELETE", location, { allow: [404] });
  },

  async "an upload that is finished"(talk) {
    const { bytes, digest } = blobOf("finished");
    const { location } = await begin(talk);
    const end = finishing(location, digest);
    await talk.send("PUT", end, { body: bytes, allow: [201] });
    await talk.send("GET", location, { allow: [404] });
    await talk.send("PUT", end, { body: bytes, allow: [404] });
  },

  async "an upload that nobody has begun"(talk) {
    const where = "blobs/uploads/d3b07384-d9a0-4f1c-8a52-1f3ba8d4b4c5";
    const body = Buffer.from("x");
    await talk.send("GET", where, { allow: [404, 400] });
    await talk.send("PATCH", where, { body, allow: [404, 400] });
    await talk.send("PUT", finishing(where, digestOf(body)), { body, allow: [404, 400] });
    await talk.send("DELETE", where, { allow: [404, 400] });
  },
});

/** A mount, or the upload that a registry begins in its place. */
const mountOrUpload = (query: string, blob: Content, allow: readonly number[]) =>
  async function mount(talk: Talk): Promise<void> {
    const where = `blobs/uploads/?mount=${encodeURIComponent(blob.digest)}${query}`;
    const { status, location } = await talk.send("POST", where, { allow });
    if (status === 202) {
      await talk.send("PUT", finishing(location, blob.digest), { body: blob.bytes, allow: [201] });
    }
    await readBlob(talk, blob.digest);
  };

const from = (name: string): string => `&from=${encodeURIComponent(name)}`;

export const mounts: Chapter = chapter("Push: mounts across repositories", {
  async "from another repository"(talk) {
    const blob = blobOf("mount");
    await putBlob(talk, blob, talk.other);
    await mountOrUpload(from(talk.peer.nameOf(talk.other)), blob, [201, 202])(talk);
  },

  async "from another repository, by its name in the registry"(talk) {
    const blob = blobOf("mount by own name");
    await putBlob(talk, blob, talk.other);
    await mountOrUpload(from(talk.other), blob, [201, 202])(talk);
  },

  async "from behind another connector"(talk) {
    const blob = blobOf("mount from elsewhere");
    await mountOrUpload(from(talk.peer.elsewhere), blob, [202])(talk);
  },

  async "without saying from where"(talk) {
    const blob = blobOf("mount from anywhere");
    await putBlob(talk, blob, talk.other);
    await mountOrUpload("", blob, [201, 202])(talk);
  },

  async "of a blob that is not there"(talk) {
    await putBlob(talk, blobOf("another"), talk.other);
    const blob = blobOf("mount of nothing");
    await mountOrUpload(from(talk.peer.nameOf(talk.other)), blob, [202])(talk);
  },

  async "of a blob that is not there, without saying from where"(talk) {
    await mountOrUpload("", blobOf("mount of nothing from anywhere"), [202])(talk);
  },

  async "from a repository that does not exist"(talk) {
    const blob = blobOf("mount from nothing");
    await mountOrUpload(from(talk.peer.nameOf("nobody/has-this")), blob, [202])(talk);
  },

  async "from the same repository"(talk) {
    const blob = blobOf("mount from here");
    await putBlob(talk, blob);
    await mountOrUpload(from(talk.peer.nameOf(talk.repository)), blob, [201, 202])(talk);
  },
});
