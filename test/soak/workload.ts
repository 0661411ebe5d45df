import { setTimeout as sleep } from "node:timers/promises";
import { noise, sha256 } from "../support/oci-image.ts";
import { digestOfChunks, type PacedAnswer, type PacedClient } from "./paced-client.ts";

/** What clients have done so far. */
export interface Tally {
  pulls: number;
  pushes: number;
  /** Downloads that were cut and went on with Range. */
  resumed: number;
  /** Answers and missing answers after which a client began anew, by what they were. */
  readonly again: Record<string, number>;
  /** What must never be: a body that is whole and wrong. */
  readonly corrupted: string[];
}

export const emptyTally = (): Tally => ({
  pulls: 0,
  pushes: 0,
  resumed: 0,
  again: {},
  corrupted: [],
});

const kibibyte = 1024;
/** The largest is more than the kernel buffers on the way, so that a registry that is killed cuts it. It is pulled alone. */
const sizes = [16 * kibibyte, 1000 * kibibyte, 5000 * kibibyte, 24_000 * kibibyte];
/** A push begins anew each time, so it has to fit between two restarts on a machine that is busy. */
const pushed = 3;
const blobs: readonly (readonly [digest: string, blob: Buffer])[] = sizes.map((size) => {
  const blob = noise(`soak ${size}`, size);
  return [sha256(blob), blob];
});
const manifestType = "application/vnd.oci.image.manifest.v1+json";
const base = "/v2/namespaces/team-a/connectors/soak";

/** One client that pulls or pushes, again and again, until it is told to stop. */
export interface Worker {
  readonly client: PacedClient;
  readonly tally: Tally;
  readonly isOver: () => boolean;
}

/** Puts everything there that is pulled later. */
export const prepare = (worker: Worker): Promise<void> =>
  eachBlob((digest, blob) => push(worker, "soak/pulled", digest, blob));

export async function pullForEver(worker: Worker, number: number): Promise<void> {
  for (let turn = number; !worker.isOver(); turn += 1) {
    const [digest, blob] = blobAt(turn % blobs.length);
    const resumes = number % 2 === 0 || blob.length > 10_000 * kibibyte;
    await untilDone(worker, () => pullManifest(worker, digest));
    await untilDone(worker, () => pullBlob(worker, digest, blob.length, resumes));
  }
}

export async function pushForEver(worker: Worker, number: number): Promise<void> {
  for (let turn = number; !worker.isOver(); turn += 1) {
    const [digest, blob] = blobAt(turn % pushed);
    await push(worker, `soak/pushed-${number}`, digest, blob);
  }
}

const blobAt = (index: number): readonly [string, Buffer] => blobs[index] ?? ["", Buffer.alloc(0)];

async function eachBlob(act: (digest: string, blob: Buffer) => Promise<void>): Promise<void> {
  for (const [digest, blob] of blobs) await act(digest, blob);
}

/** An attempt: undefined where it is done, or what came in place of that. */
type Attempt = Promise<string | undefined>;

async function untilDone({ tally, isOver }: Worker, attempt: () => Attempt): Promise<void> {
  while (!isOver()) {
    const trouble = await attempt();
    if (trouble === undefined) return;
    tally.again[trouble] = (tally.again[trouble] ?? 0) + 1;
    await sleep(500 + Math.random() * 1000);
  }
}

/** What an answer is called that is not the one that was hoped for. */
const nameOf = (what: string, answer: PacedAnswer | undefined): string =>
  answer === undefined ? `${what}: no answer` : `${what}: ${answer.status}`;

async function pullManifest({ client, tally }: Worker, digest: string): Attempt {
  const answer = await client("GET", `${base}/soak/pulled/manifests/${tagOf(digest)}`, {
    headers: { accept: manifestType },
  });
  if (answer?.status !== 200) return nameOf("GET manifest", answer);
  if (!answer.complete) return "GET manifest: cut";
  if (!answer.body.equals(manifestOf(digest))) tally.corrupted.push(`manifest of ${digest}`);
  return undefined;
}

/** A download that may take several answers. */
interface Download {
  readonly digest: string;
  readonly size: number;
  received: number;
}

async function pullBlob(
  { client, tally, isOver }: Worker,
  digest: string,
  size: number,
  resumes: boolean,
): Attempt {
  const hash = digestOfChunks();
  const download = { digest, size, received: 0 };
  for (;;) {
    const trouble = await pullRest(client, download, hash.add);
    if (trouble === undefined) break;
    if (trouble !== cutDownload || !resumes || isOver()) return trouble;
    tally.resumed += 1;
    await sleep(500);
  }
  tally.pulls += 1;
  const found = hash.digest();
  const { received } = download;
  if (found !== digest || received !== size) {
    tally.corrupted.push(`pulled ${received} of ${size} bytes of ${digest}: ${found}`);
  }
  return undefined;
}

const cutDownload = "GET blob: cut";

async function pullRest(
  client: PacedClient,
  download: Download,
  onChunk: (chunk: Buffer) => void,
): Attempt {
  const { digest, size, received } = download;
  if (received === size) return undefined; // all is there, and just its end was cut
  const headers: Record<string, string> = received > 0 ? { range: `bytes=${received}-` } : {};
  const answer = await client("GET", `${base}/soak/pulled/blobs/${digest}`, { headers, onChunk });
  if (answer?.status !== (received > 0 ? 206 : 200)) return nameOf("GET blob", answer);
  download.received += answer.bytes;
  return answer.complete ? undefined : cutDownload;
}

/** A registry that is killed may lose what it has said it holds, so a manifest that it refuses begins with its blobs anew. */
const push = (worker: Worker, repository: string, digest: string, blob: Buffer): Promise<void> =>
  untilDone(worker, async () => {
    for (const [part, content] of new Map([...blobs.slice(0, 1), [digest, blob]])) {
      await untilDone(worker, () => pushBlob(worker, repository, part, content));
    }
    return worker.isOver() ? undefined : pushManifest(worker, repository, digest);
  });

async function pushBlob(
  { client, tally }: Worker,
  repository: string,
  digest: string,
  blob: Buffer,
): Attempt {
  const begun = await client("POST", `${base}/${repository}/blobs/uploads/`);
  if (begun?.status !== 202 || begun.location === undefined) return nameOf("POST", begun);
  const half = Math.ceil(blob.length / 2);
  const first = await client("PATCH", begun.location, { body: blob.subarray(0, half) });
  if (first?.status !== 202 || first.location === undefined) return nameOf("PATCH", first);
  const last = await client("PUT", `${first.location}&digest=${digest}`, {
    body: blob.subarray(half),
  });
  if (last?.status === 400) tally.corrupted.push(`pushed ${digest}: ${last.body}`);
  if (last?.status !== 201) return nameOf("PUT", last);
  tally.pushes += 1;
  return undefined;
}

async function pushManifest({ client }: Worker, repository: string, digest: string): Attempt {
  const answer = await client("PUT", `${base}/${repository}/manifests/${tagOf(digest)}`, {
    headers: { "content-type": manifestType },
    body: manifestOf(digest),
  });
  return answer?.status === 201 ? undefined : nameOf("PUT manifest", answer);
}

const tagOf = (digest: string): string => digest.slice("sha256:".length, 20);

function manifestOf(digest: string): Buffer {
  const [configDigest = "", config] = blobs[0] ?? [];
  const size = blobs.find(([other]) => other === digest)?.[1].length;
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: {
        mediaType: "application/vnd.oci.image.config.v1+json",
        digest: configDigest,
        size: config?.length,
      },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size }],
    }),
  );
}
