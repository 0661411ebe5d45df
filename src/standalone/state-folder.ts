import {
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from "node:crypto";
import { chmod, mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { createAuthority, type KeyPair } from "../certificate-authority.ts";
import type { Log } from "../log.ts";
import { lockFolder } from "./folder-lock.ts";
import { readPrivateFile, removeUnfinishedFiles, writePrivateFile } from "./private-file.ts";

export interface StateFolderOptions {
  readonly folder: string;
  readonly log: Log;
  readonly now: () => Date;
  readonly pid: number;
}

/** What standalone mode remembers, and holds for itself alone until it is closed. */
export interface StateFolder {
  readonly path: string;
  /** Signs tokens: Ed25519. */
  readonly tokenKey: KeyObject;
  /** Signs the proxy's certificates. */
  readonly authority: KeyPair;
  /** Seals upload sessions: 32 bytes. */
  readonly sealKey: Buffer;
  /** Where volumes are recorded. */
  readonly volumesFolder: string;
  close(): Promise<void>;
}

/**
 * Opens the state folder, and makes whatever is missing in it. It is its owner's alone: the folder
 * has mode 0700, and every file 0600.
 * @throws where another process has it, others may enter it, or a file is damaged; nothing is ever
 * replaced, since clients trust the authority, and tokens and uploads are bound to the keys
 */
export async function openStateFolder(options: StateFolderOptions): Promise<StateFolder> {
  const { folder } = options;
  await makePrivateFolder(folder);
  const lock = await lockFolder(join(folder, "lock"), options.pid);
  try {
    const volumesFolder = join(folder, "volumes");
    await makePrivateFolder(volumesFolder);
    await removeUnfinishedFiles(folder);
    await removeUnfinishedFiles(volumesFolder);
    const keep = <T>(name: string, kept: Kept<T>): Promise<T> =>
      readOrMake({ ...kept, path: join(folder, name), log: options.log });
    return {
      path: folder,
      tokenKey: await keep("token.key", tokenKey),
      authority: await keep("proxy-ca.pem", authority(options.now)),
      sealKey: await keep("seal.key", sealKey),
      volumesFolder,
      close: () => lock.release(),
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function makePrivateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const { mode, uid } = await stat(folder);
  if (process.getuid !== undefined && uid !== process.getuid()) {
    throw new Error(`${folder} belongs to user ${uid}: wanted a state folder of one's own`);
  }
  if ((mode & 0o777) === 0o700) return;
  // A folder with something in it may be anything, say /tmp, so its mode is its owner's affair.
  if ((await readdir(folder)).length > 0) {
    const found = (mode & 0o777).toString(8);
    throw new Error(`${folder} holds keys, found mode ${found}: chmod 700 ${folder}`);
  }
  await chmod(folder, 0o700);
}

/** Something that is made once and kept in a file. */
interface Kept<T> {
  readonly what: string;
  readonly make: () => Promise<string | Buffer> | string | Buffer;
  /** @throws where it is damaged */
  readonly parse: (content: Buffer) => T;
  /** What happens to those who rely on it when a new one is made. */
  readonly loss: string;
}

async function readOrMake<T>(
  kept: Kept<T> & { readonly path: string; readonly log: Log },
): Promise<T> {
  const { path, what } = kept;
  const content = await readPrivateFile(path);
  if (content === undefined) {
    const made = await kept.make();
    await writePrivateFile(path, made);
    kept.log("info", `made ${what}`, { file: path });
    return kept.parse(Buffer.from(made));
  }
  try {
    return kept.parse(content);
  } catch {
    // What the parsers say is left out: it may quote a key.
    throw new Error(
      `${path} is damaged, wanted ${what}: put it back from a copy, or remove it to have a new one made (${kept.loss})`,
    );
  }
}

const tokenKey: Kept<KeyObject> = {
  what: "an Ed25519 private key in PEM that signs tokens",
  make: () =>
    generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  parse(content) {
    const key = createPrivateKey(content);
    if (key.asymmetricKeyType !== "ed25519") throw new Error("not Ed25519");
    return key;
  },
  loss: "tokens that tools hold are refused then",
};

/** Both parts in one file, so that no kill can part them. */
const authority = (now: () => Date): Kept<KeyPair> => ({
  what: "the proxy's certificate authority, a certificate and its private key in PEM",
  async make() {
    const { certificate, privateKey } = await createAuthority("oci-connector", now());
    return certificate + privateKey;
  },
  parse(content) {
    const text = content.toString("latin1");
    const part = (label: string): string =>
      new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----`).exec(text)?.[0] ?? "";
    const [certificate, privateKey] = [part("CERTIFICATE"), part("PRIVATE KEY")];
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey))) {
      throw new Error("two halves of different pairs");
    }
    return { certificate: `${certificate}\n`, privateKey: `${privateKey}\n` };
  },
  loss: "clients that were given the old certificate don't trust the proxy then",
});

const sealKeyLength = 32;
const sealKey: Kept<Buffer> = {
  what: `a key of ${sealKeyLength} bytes that seals upload sessions`,
  make: () => randomBytes(sealKeyLength),
  parse(content) {
    if (content.length !== sealKeyLength) throw new Error("another length");
    return content;
  },
  loss: "uploads under way have to be begun again",
};
