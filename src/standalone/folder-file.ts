import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../error-code.ts";
import { type FolderDocuments, noDocuments, readFolderDocuments } from "./folder-documents.ts";

/** What lies in one file of the folder now. */
export interface FolderFile {
  /** Its text, or why there is none. */
  readonly content:
    | { readonly ok: true; readonly text: string }
    | { readonly ok: false; readonly reason: string };
  /** Differs whenever the content does. */
  readonly digest: string;
  /** Every user of the machine may read it. */
  readonly openToAll: boolean;
}

/** Room for thousands of connectors. A longer file is something else that got in by mistake. */
const maxFileBytes = 1024 * 1024;

/**
 * Reads every `*.yaml` and `*.yml` of a folder, by name in the order of their code units. Hidden
 * files are left out, since editors keep their own there, and so are folders and links to nothing.
 * @throws where the folder itself can't be read
 */
export async function readFolderFiles(folder: string): Promise<ReadonlyMap<string, FolderFile>> {
  const names = (await readdir(folder)).filter((name) => /^[^.].*\.ya?ml$/.test(name)).sort();
  const files = await Promise.all(names.map((name) => readFolderFile(join(folder, name))));
  return new Map(
    names.flatMap((name, index) => {
      const file = files[index];
      return file === undefined ? [] : [[name, file] as const];
    }),
  );
}

async function readFolderFile(path: string): Promise<FolderFile | undefined> {
  try {
    const status = await stat(path);
    if (status.isDirectory()) return undefined;
    const openToAll = (status.mode & 0o004) !== 0;
    // Reading a pipe or a device may never end.
    if (!status.isFile()) return unreadable("it is not a regular file", openToAll);
    if (status.size > maxFileBytes) return unreadable("it has more than 1 MiB", openToAll);
    return readable(await readFile(path), openToAll);
  } catch (error) {
    const code = errorCode(error) ?? error;
    return code === "ENOENT" ? undefined : unreadable(`it can't be read: ${code}`, false);
  }
}

function readable(bytes: Buffer, openToAll: boolean): FolderFile {
  const digest = createHash("sha256").update(bytes).digest("hex");
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return { content: { ok: true, text }, digest, openToAll };
  } catch {
    return unreadable("it is not UTF-8 text", openToAll);
  }
}

const unreadable = (reason: string, openToAll: boolean): FolderFile => ({
  content: { ok: false, reason },
  digest: reason,
  openToAll,
});

/** A file of the folder as it is used, which may be older than what it holds now. */
export interface KeptFile {
  readonly digest: string;
  readonly openToAll: boolean;
  /** What the file says now. */
  readonly latest: FolderDocuments;
  /** What it said when last nothing was wrong with it. */
  readonly lastGood: FolderDocuments | undefined;
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

function readLatest(
  { content }: FolderFile,
  lastGood: FolderDocuments | undefined,
): FolderDocuments {
  if (!content.ok) return { ...noDocuments, problems: [content.reason] };
  if (content.text.trim() === "" && lastGood !== undefined && hasObjects(lastGood)) {
    return { ...noDocuments, problems: ["it is empty (to remove its objects, delete it)"] };
  }
  return readFolderDocuments(content.text);
}

const hasObjects = ({ connectors, secrets }: FolderDocuments): boolean =>
  connectors.length + secrets.length > 0;

/** The part of a file that counts. */
export const documentsInUse = ({ latest, lastGood }: KeptFile): FolderDocuments =>
  lastGood ?? latest;
