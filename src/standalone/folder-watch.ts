import { type FSWatcher, watch } from "node:fs";
import { stat } from "node:fs/promises";

/** What to watch, and what to call. */
export interface FolderWatchOptions {
  readonly folder: string;
  /** How long no further event may come after an event before `onQuiet` is called. */
  readonly debounceMs: number;
  /** Called some time after the last event. */
  readonly onQuiet: () => void;
  /** Called where the folder can't be watched, or no longer. */
  readonly onError: (error: unknown) => void;
}

/** A watch of a folder. */
export interface FolderWatch {
  /**
   * Watches the folder that is at the path now. After a folder was replaced, its watch is lost, and this has to be called
   * again.
   * @throws the system's error where nothing is at the path
   */
  follow(): Promise<void>;
  stop(): void;
}

/**
 * Watches a folder by inotify. A network file system sends no events, so whoever watches has to look by itself from
 * time to time.
 */
export function watchFolder(options: FolderWatchOptions): FolderWatch {
  let watcher: FSWatcher | undefined;
  let watched: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  const onEvent = (): void => {
    clearTimeout(timer);
    timer = setTimeout(options.onQuiet, options.debounceMs).unref();
  };
  const close = (): void => {
    watcher?.close();
    watcher = undefined;
  };
  return {
    async follow() {
      const identity = await identityOf(options.folder);
      if (stopped || identity === watched) return;
      close();
      // Set also where it fails, so that a machine without free watches is tried and logged once.
      watched = identity;
      try {
        watcher = watch(options.folder, { persistent: false }, onEvent);
        watcher.on("error", options.onError);
      } catch (error) {
        options.onError(error);
      }
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
      close();
    },
  };
}

/** Identifies a folder. The time of birth is part of it, since a new folder may get the number of a removed inode. */
async function identityOf(folder: string): Promise<string> {
  const { dev, ino, birthtimeMs } = await stat(folder);
  return `${dev}:${ino}:${birthtimeMs}`;
}
