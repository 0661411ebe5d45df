import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../error-code.ts";
import { type FolderDocuments, noDocuments, readFolderDocuments } from "./folder-documents.ts";

/** What is in one file of the folder now. */
export interface FolderFile {
  /** The file's text, or why there is none. */
  readonly content:
    | { readonly ok: true; readonly text: string }
    | { readonly ok: false; readonly reason: string };
  /** Differs whenever the content does. */
  readonly digest: string;
  /** Whether every user of the machine may read the file. */
  readonly openToAll: boolean;
}

/** Room for thousands of connectors. A larger file is not meant to be here. */
const maxFileBytes = 1024 * 1024;

/**
 * Reads every `*.yaml` and `*.yml` of a folder, sorted by the code units of the names. Hidden files are left out,
 * since editors make some, and so are folders and links to nothing.
 * @returns the files by name
 * @throws the system's error where the folder itself can't be read
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

/** A file of the folder as it is in use. What is in use may be older than what the file holds now. */
export interface KeptFile {
  readonly digest: string;
  readonly openToAll: boolean;
  /** The objects that the file holds now. */
  readonly latest: FolderDocuments;
  /** The objects that it held when it was last valid as a whole, or undefined where it never was. */
  readonly lastGood: FolderDocuments | undefined;
}

/**
 * Combines what was known of a file with what it holds now.
 *
 * A file with any problem keeps everything that it held when it was last valid, since a Connector and its
 * Secret are edited together, and a slip of the pen must not stop a running host. Of a file that was
 * never valid in this process, the valid documents are in use: a host with one bad document starts
 * with all the others, and each further edit of that file takes effect at once.
 *
 * An empty file is a problem unless it was empty from the start, since a file that is truncated and about to be written
 * looks like that. Deleting the file removes its objects.
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

/** The objects of a file that are in use. */
export const documentsInUse = ({ latest, lastGood }: KeptFile): FolderDocuments =>
  lastGood ?? latest;
