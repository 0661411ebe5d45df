import {
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from "node:crypto";
import { constants } from "node:fs";
import { access, chmod, mkdir, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createAuthority, type KeyPair } from "../certificate-authority.ts";
import { errorCode, unless } from "../error-code.ts";
import type { Log } from "../log.ts";
import { lockFolder } from "./folder-lock.ts";
import { readPrivateFile, removeUnfinishedFiles, writePrivateFile } from "./private-file.ts";

/** How the state folder is opened. */
export interface StateFolderOptions {
  readonly folder: string;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** This process's id, for the message to others that find the folder locked. */
  readonly pid: number;
  /**
   * Runs before anything is created, after it is known that no other process has the folder, and that the folder and
   * its files are valid. Where it rejects, nothing has been created.
   */
  readonly beforeCreation?: () => Promise<unknown>;
}

/** The keys and records that standalone mode keeps across restarts. The folder is locked until it is closed. */
export interface StateFolder {
  readonly path: string;
  /** The Ed25519 key that signs tokens. */
  readonly tokenKey: KeyObject;
  /** The authority that signs the proxy's certificates. */
  readonly authority: KeyPair;
  /** The key of 32 bytes that seals upload sessions. */
  readonly sealKey: Buffer;
  /** The folder of the volumes' records. */
  readonly volumesFolder: string;
  /** Unlocks the folder. */
  close(): Promise<void>;
}

/**
 * Opens the state folder, and creates whatever is missing in it. It is its owner's alone: the folder
 * has mode 0700, and every file 0600. Nothing is ever replaced, since clients trust the authority, and tokens and
 * uploads are bound to the keys.
 * @throws Error with what to do, where another process has the folder, other users may enter it, or a file is damaged;
 * nothing has been created then
 */
export async function openStateFolder(options: StateFolderOptions): Promise<StateFolder> {
  const { folder, pid, log, beforeCreation } = options;
  const volumesFolder = join(folder, "volumes");
  const lockFile = join(folder, "lock");
  const path = (name: string): string => join(folder, name);
  const authority = authorityKeyFile(options.now);

  // Without a lock file, no process has the folder.
  let lock =
    (await checkPrivateFolder(folder)) && (await exists(lockFile))
      ? await lockFolder(lockFile, pid)
      : undefined;
  try {
    await checkPrivateFolder(volumesFolder);
    await readKey({ ...tokenKeyFile, path: path("token.key") });
    await readKey({ ...authority, path: path("proxy-ca.pem") });
    await readKey({ ...sealKeyFile, path: path("seal.key") });
    await beforeCreation?.();

    await createPrivateFolder(folder);
    lock ??= await lockFolder(lockFile, pid);
    await createPrivateFolder(volumesFolder);
    await removeUnfinishedFiles(folder);
    await removeUnfinishedFiles(volumesFolder);
    const held = lock;
    return {
      path: folder,
      // Read again, since another process may have created them before the lock was taken.
      tokenKey: await readOrCreateKey({ ...tokenKeyFile, path: path("token.key"), log }),
      authority: await readOrCreateKey({ ...authority, path: path("proxy-ca.pem"), log }),
      sealKey: await readOrCreateKey({ ...sealKeyFile, path: path("seal.key"), log }),
      volumesFolder,
      close: () => held.release(),
    };
  } catch (error) {
    await lock?.release();
    throw error;
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * Creates a folder and those above it that are missing. Node's own recursive mkdir never ends where a file system takes
 * no folders, as `/proc` does: it tries again whatever the system says.
 */
async function createFolders(folder: string): Promise<void> {
  const create = (): Promise<unknown> =>
    mkdir(folder, { mode: 0o700 }).catch(unless(undefined, "EEXIST"));
  try {
    await create();
  } catch (error) {
    if (errorCode(error) !== "ENOENT" || dirname(folder) === folder) throw error;
    await createFolders(dirname(folder));
    await create();
  }
}

async function createPrivateFolder(folder: string): Promise<void> {
  await createFolders(folder).catch((error: unknown) => {
    throw new Error(`${folder} can't be created (${errorCode(error)}): name another state folder`, {
      cause: error,
    });
  });
  await checkPrivateFolder(folder);
  const { mode } = await stat(folder);
  if ((mode & 0o777) !== 0o700) await chmod(folder, 0o700);
}

/**
 * Checks a folder of the state without changing anything. A missing folder has to be one that can be created, and an
 * existing one has to be its owner's alone, or empty.
 * @returns whether the folder exists
 * @throws Error with what to do
 */
async function checkPrivateFolder(folder: string): Promise<boolean> {
  const status = await stat(folder).catch(unless(undefined, "ENOENT", "ENOTDIR"));
  if (status === undefined) {
    await checkRoomFor(folder);
    return false;
  }
  if (!status.isDirectory()) throw new Error(`${folder} is a file: wanted a folder for the state`);
  const { mode, uid } = status;
  if (process.getuid !== undefined && uid !== process.getuid()) {
    throw new Error(
      `${folder} belongs to user ${uid}: wanted a state folder of the user who runs this process`,
    );
  }
  // A folder that is not empty may be anything, such as /tmp, so its mode is not changed.
  if ((mode & 0o777) !== 0o700 && (await readdir(folder)).length > 0) {
    const found = (mode & 0o777).toString(8);
    throw new Error(`${folder} holds keys, found mode ${found}: chmod 700 ${folder}`);
  }
  return true;
}

/**
 * Checks that a missing folder can be created.
 * @throws Error with what to do, where the nearest existing folder above is not writable
 */
async function checkRoomFor(folder: string): Promise<void> {
  let above = dirname(folder);
  while (above !== dirname(above) && !(await exists(above))) above = dirname(above);
  const advice = "name another state folder";
  if (!(await stat(above)).isDirectory()) {
    throw new Error(`${folder} can't be made, since ${above} is a file: ${advice}`);
  }
  await access(above, constants.W_OK).catch((error: unknown) => {
    const wanted = `wanted ${above} to be writable: make it so, or ${advice}`;
    throw new Error(`${folder} can't be made (${String(errorCode(error))}), ${wanted}`, {
      cause: error,
    });
  });
}

/** A key, or a pair of keys, that is created once and kept in a file. */
interface KeyFile<T> {
  /** What the file holds, for messages. */
  readonly what: string;
  readonly create: () => Promise<string | Buffer> | string | Buffer;
  /** @throws Error where the content is damaged */
  readonly parse: (content: Buffer) => T;
  /** What happens to those who rely on the key when a new one is created. */
  readonly loss: string;
}

type LocatedKeyFile<T> = KeyFile<T> & { readonly path: string };

async function readOrCreateKey<T>(kept: LocatedKeyFile<T> & { readonly log: Log }): Promise<T> {
  const { path, what } = kept;
  const present = await readKey(kept);
  if (present !== undefined) return present;
  const made = await kept.create();
  await writePrivateFile(path, made);
  kept.log("info", `created ${what}`, { file: path });
  return kept.parse(Buffer.from(made));
}

/**
 * Reads a key from its file.
 * @returns undefined where there is no file
 * @throws Error with what to do, where the file is damaged
 */
async function readKey<T>({ path, what, parse, loss }: LocatedKeyFile<T>): Promise<T | undefined> {
  const content = await readPrivateFile(path);
  if (content === undefined) return undefined;
  try {
    return parse(content);
  } catch {
    // The parser's message is dropped, since it may quote a key.
    throw new Error(
      `${path} is damaged, wanted ${what}: restore it from a backup, or remove it so that a new one is created (${loss})`,
    );
  }
}

const tokenKeyFile: KeyFile<KeyObject> = {
  what: "an Ed25519 private key in PEM that signs tokens",
  create: () =>
    generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  parse(content) {
    const key = createPrivateKey(content);
    if (key.asymmetricKeyType !== "ed25519") throw new Error("not Ed25519");
    return key;
  },
  loss: "tokens that tools hold are then refused",
};

/** The authority. Both parts are in one file, so that a killed process can't leave one without the other. */
const authorityKeyFile = (now: () => number): KeyFile<KeyPair> => ({
  what: "the proxy's certificate authority, a certificate and its private key in PEM",
  async create() {
    const { certificate, privateKey } = await createAuthority("oci-connector", new Date(now()));
    return certificate + privateKey;
  },
  parse(content) {
    const text = content.toString("latin1");
    const part = (label: string): string =>
      new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----`).exec(text)?.[0] ?? "";
    const [certificate, privateKey] = [part("CERTIFICATE"), part("PRIVATE KEY")];
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey))) {
      throw new Error("the certificate and the private key are not a pair");
    }
    return { certificate: `${certificate}\n`, privateKey: `${privateKey}\n` };
  },
  loss: "clients that were given the old certificate then don't trust the proxy",
});

const sealKeyBytes = 32;
const sealKeyFile: KeyFile<Buffer> = {
  what: `a key of ${sealKeyBytes} bytes that seals upload sessions`,
  create: () => randomBytes(sealKeyBytes),
  parse(content) {
    if (content.length !== sealKeyBytes) throw new Error("another length");
    return content;
  },
  loss: "uploads under way must then be started again",
};
