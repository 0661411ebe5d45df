import { type FSWatcher, watch } from "node:fs";
import { stat } from "node:fs/promises";

export interface FolderWatchOptions {
  readonly folder: string;
  /** How long it must be quiet after an event before `onQuiet` is called. */
  readonly debounceMs: number;
  readonly onQuiet: () => void;
  /** Events don't come any more, or never did. */
  readonly onError: (error: unknown) => void;
}

export interface FolderWatch {
  /**
   * Watches what lies at the path now: a folder that is replaced takes its watch with it.
   * @throws where nothing lies there
   */
  follow(): Promise<void>;
  stop(): void;
}

/** Events of a folder, by inotify. A network file system sends none, so they only save time. */
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
      // Also where it fails: a machine without free watches is asked, and told of, once.
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

/** A number of an inode alone may be given anew. */
async function identityOf(folder: string): Promise<string> {
  const { dev, ino, birthtimeMs } = await stat(folder);
  return `${dev}:${ino}:${birthtimeMs}`;
}
