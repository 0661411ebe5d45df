/** A tar archive (POSIX ustar) without times and owners, so that the same content has the same bytes. */
export type TarEntry =
  | { readonly kind: "folder"; readonly path: string; readonly mode: number }
  | { readonly kind: "link"; readonly path: string; readonly target: string }
  | {
      readonly kind: "file";
      readonly path: string;
      readonly mode: number;
      readonly size: number;
      /** Called each time the archive is made. */
      readonly content: () => Iterable<Buffer>;
    };

const blockSize = 512;
const typeFlag = { file: "0", link: "2", folder: "5" } as const;

/** The bytes of an archive, bit by bit. */
export function* tarBlocks(entries: Iterable<TarEntry>): Generator<Buffer> {
  for (const entry of entries) {
    yield header(entry);
    if (entry.kind !== "file") continue;
    let written = 0;
    for (const block of entry.content()) {
      written += block.length;
      yield block;
    }
    if (written !== entry.size) throw new Error(`${entry.path} has changed while it was read`);
    yield Buffer.alloc((blockSize - (entry.size % blockSize)) % blockSize);
  }
  yield Buffer.alloc(2 * blockSize);
}

function header(entry: TarEntry): Buffer {
  const block = Buffer.alloc(blockSize);
  const [prefix, name] = splitPath(entry.kind === "folder" ? `${entry.path}/` : entry.path);
  block.write(name, 0);
  block.write(octal(entry.kind === "link" ? 0o777 : entry.mode, 8), 100);
  block.write(octal(0, 8), 108);
  block.write(octal(0, 8), 116);
  block.write(octal(entry.kind === "file" ? entry.size : 0, 12), 124);
  block.write(octal(0, 12), 136);
  block.write(" ".repeat(8), 148); // the checksum counts itself as blanks
  block.write(typeFlag[entry.kind], 156);
  if (entry.kind === "link") block.write(entry.target, 157, 100);
  block.write("ustar\x0000", 257);
  block.write(prefix, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(octal(sum, 7), 148);
  return block;
}

const octal = (value: number, length: number): string =>
  `${value.toString(8).padStart(length - 1, "0")}\0`;

/** A name has 100 bytes; what stands before it goes to the prefix, which has 155. */
function splitPath(path: string): readonly [prefix: string, name: string] {
  if (Buffer.byteLength(path) <= 100) return ["", path];
  for (let slash = path.indexOf("/"); slash > 0; slash = path.indexOf("/", slash + 1)) {
    const [prefix, name] = [path.slice(0, slash), path.slice(slash + 1)];
    if (name !== "" && Buffer.byteLength(name) <= 100 && Buffer.byteLength(prefix) <= 155) {
      return [prefix, name];
    }
  }
  throw new Error(`a path too long for a tar archive: ${path}`);
}
