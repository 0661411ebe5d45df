import { shareRuns } from "../concurrency.ts";
import { errorCode } from "../error-code.ts";
import type { Log } from "../log.ts";
import { createFolderContents, type FolderContents, folderProblems } from "./folder-contents.ts";
import { type KeptFile, keepFile, readFolderFiles } from "./folder-file.ts";
import { watchFolder } from "./folder-watch.ts";

/** How a folder of connectors is read. */
export interface ConnectorFolderOptions {
  readonly folder: string;
  readonly log: Log;
  /** How long the folder must be without events before it is read; 100 by default. */
  readonly debounceMs?: number;
  /** How often the folder is read without any event, since network file systems send none; 10,000 by default. */
  readonly rescanMs?: number;
}

/** The Connectors and Secrets of a folder, kept up to date. */
export interface ConnectorFolder {
  readonly path: string;
  /** The folder's objects as of the last reading. */
  contents(): FolderContents;
  /** Reads the folder, and settles when everything in it at the time of the call has been read. Never rejects. */
  rescan(): Promise<void>;
  /** As `rescan`, and logs all that is wrong with the folder once more, for whoever has asked for it. */
  reload(): Promise<void>;
  /** Calls a listener after each change of connectors. Returns a function that removes the listener. */
  onChange(listener: ConnectorsChanged): () => void;
  /** Ends the reading. */
  stop(): Promise<void>;
}

/** A listener that gets the connectors (`namespace/name`) that were added, removed or changed. */
export type ConnectorsChanged = (refs: ReadonlySet<string>) => void;

/**
 * Reads a folder and keeps reading it. Problems in its files are logged, once for each change, and what
 * was valid before stays in use (see `keepFile`). The objects of a deleted file are removed. While the folder
 * can't be read, everything stays in use.
 * @throws Error with what to do, where the folder is missing or can't be read at the start
 */
export async function openConnectorFolder(
  options: ConnectorFolderOptions,
): Promise<ConnectorFolder> {
  const { folder, log, debounceMs = 100, rescanMs = 10_000 } = options;
  const listeners = new Set<ConnectorsChanged>();
  let files: ReadonlyMap<string, KeptFile> = new Map();
  let contents = createFolderContents(files);
  let reported: ReadonlySet<string> = new Set();
  let unreadable: string | undefined;
  let stopped = false;

  const read = async (): Promise<void> => {
    const found = await readFolderFiles(folder);
    if (stopped) return;
    const before = contents.connectors;
    files = new Map([...found].map(([name, file]) => [name, keepFile(files.get(name), file)]));
    contents = createFolderContents(files);
    const problems = folderProblems(folder, files, contents);
    for (const { key, level, message, fields } of problems) {
      if (!reported.has(key)) log(level, message, fields);
    }
    reported = new Set(problems.map(({ key }) => key));
    const changed = changedKeys(before, contents.connectors);
    if (changed.size === 0) return;
    log("info", "connectors were added, removed or changed", {
      file: folder,
      connectors: list(changed),
    });
    for (const listener of listeners) listener(changed);
  };
  const readAgain = async (): Promise<void> => {
    try {
      await watcher.follow();
      await read();
      if (unreadable !== undefined)
        log("info", "the connectors folder can be read again", { file: folder });
      unreadable = undefined;
    } catch (error) {
      if (unreadable !== String(error)) {
        log("error", "the connectors folder can't be read; its last contents stay in use", {
          file: folder,
          error,
        });
      }
      unreadable = String(error);
    }
  };
  const rescan = shareRuns(async () => {
    if (!stopped) await readAgain();
  });
  const watcher = watchFolder({
    folder,
    debounceMs,
    onQuiet: () => void rescan(),
    onError: (error) => {
      const message =
        "the connectors folder can't be watched; changes are seen only when it is read again";
      log("warning", message, { file: folder, durationMs: rescanMs, error });
    },
  });

  try {
    // The watch comes first, so that no change is missed in between.
    await watcher.follow();
    await read();
  } catch (error) {
    watcher.stop();
    throw new Error(explainUnreadable(folder, error));
  }
  const rescans = setInterval(() => void rescan(), rescanMs).unref();
  return {
    path: folder,
    contents: () => contents,
    rescan,
    async reload() {
      reported = new Set();
      unreadable = undefined;
      await rescan();
      if (unreadable !== undefined) return;
      log("info", "the connectors folder was read again", {
        file: folder,
        connectors: list(contents.connectors.keys()),
      });
    },
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async stop() {
      stopped = true;
      clearInterval(rescans);
      watcher.stop();
      await rescan();
    },
  };
}

function changedKeys(
  before: FolderContents["connectors"],
  after: FolderContents["connectors"],
): ReadonlySet<string> {
  const refs = [...new Set([...before.keys(), ...after.keys()])].sort();
  const isChanged = (ref: string): boolean =>
    JSON.stringify(before.get(ref)) !== JSON.stringify(after.get(ref));
  return new Set(refs.filter(isChanged));
}

const list = (refs: Iterable<string>): string => [...refs].join(", ");

/** Why a folder of connectors can't be read, and what to do. */
export function explainUnreadable(folder: string, error: unknown): string {
  const code = errorCode(error);
  if (code === "ENOENT") {
    return `the connectors folder ${folder} doesn't exist: create it, with a YAML file of Connectors and Secrets in it`;
  }
  if (code === "ENOTDIR")
    return `the connectors folder ${folder} is a file: name the folder it is in`;
  return `the connectors folder ${folder} can't be read (${String(code)}): grant this user read and search on it`;
}
