import type { FolderFile } from "./folder-file.ts";
import { emptyManifest, type Manifest, readManifest } from "./manifest.ts";

/** A file of the folder as it is used, which may be older than what it holds now. */
export interface KeptFile {
  readonly digest: string;
  readonly openToAll: boolean;
  /** What the file says now. */
  readonly latest: Manifest;
  /** What it said when last nothing was wrong with it. */
  readonly lastGood: Manifest | undefined;
}

/**
 * What becomes of a file that may have changed.
 *
 * A file with anything wrong in it keeps what it last held as a whole, since a Connector and its
 * Secret are edited together, and a slip of the pen must not stop a running host. A file that was
 * never right in this process gives its valid documents: then a host with one bad document comes up
 * with all the others, and each further edit of that file counts at once.
 *
 * A file without a single character counts as wrong, unless it was so from the start: that is how a
 * file looks that is truncated and about to be written. To take its objects away, delete it.
 */
export function keepFile(previous: KeptFile | undefined, file: FolderFile): KeptFile {
  if (previous?.digest === file.digest) return { ...previous, openToAll: file.openToAll };
  const latest = readLatest(file, previous?.lastGood);
  return {
    digest: file.digest,
    openToAll: file.openToAll,
    latest,
    lastGood: latest.problems.length === 0 ? latest : previous?.lastGood,
  };
}

function readLatest({ content }: FolderFile, lastGood: Manifest | undefined): Manifest {
  if (!content.ok) return { ...emptyManifest, problems: [content.reason] };
  if (content.text.trim() === "" && lastGood !== undefined && hasObjects(lastGood)) {
    return { ...emptyManifest, problems: ["it is empty (to remove its objects, delete it)"] };
  }
  return readManifest(content.text);
}

const hasObjects = ({ connectors, secrets }: Manifest): boolean =>
  connectors.length + secrets.length > 0;

/** The part of a file that counts. */
export const manifestInUse = ({ latest, lastGood }: KeptFile): Manifest => lastGood ?? latest;
