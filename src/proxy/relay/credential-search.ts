/** Whether a registry shows the credential that it was sent. Registries in debug mode echo requests in errors and headers. */
import {
  brotliDecompressSync,
  constants,
  gunzipSync,
  inflateRawSync,
  inflateSync,
  zstdDecompressSync,
} from "node:zlib";
import type { Credential } from "../../connector/credential.ts";
import { attempt, errorCode } from "../../error-code.ts";
import type { HeaderFields } from "../headers.ts";
import { badGateway, type RegistryError } from "../registry-error.ts";

/** Shorter secrets would be found where they are not meant. */
const minSecretLength = 8;
/**
 * Of a longer secret, its end is looked for: that of a token is its signature. It would take the square of its length to
 * find, among its own repetitions, one that a registry has made up to be hard to find.
 */
const maxSearchedLength = 64;
/** A password that is one word, such as `registry`, stands in many errors that do not mean it. Its encoded forms don't. */
const plainWord = /^[A-Za-z]{1,15}$/;

/**
 * Looks for a connector's password, and for the tokens of one client's request, in what a registry has sent: as they are,
 * in base64 (also within a longer text, as `user:password`), percent-encoded, hexadecimal, and in JSON.
 */
export class CredentialSearch {
  readonly #secrets: Secret[] = [];

  /** @param credential of the connector; undefined where it has none */
  constructor(credential: Credential | undefined) {
    if (credential === undefined || credential.password.length < minSecretLength) return;
    const known = passwords.get(credential) ?? new Secret(credential.password);
    passwords.set(credential, known);
    this.#secrets.push(known);
  }

  /** Looks for the credential of an Authorization header from now on, too. */
  add(authorization: string | undefined): void {
    const text = authorization?.slice(authorization.indexOf(" ") + 1) ?? "";
    const isKnown = this.#secrets.some((secret) => secret.text === text);
    if (text.length >= minSecretLength && !isKnown) this.#secrets.push(new Secret(text));
  }

  /** Whether headers show the credential. */
  isInHeaders(headers: HeaderFields): boolean {
    return this.isIn(
      Object.entries(headers)
        .map(([name, value]) => `${name}: ${value}`)
        .join("\n"),
    );
  }

  /** Whether a text shows the credential. Of a body, the text is in latin1. */
  isIn(text: string): boolean {
    const secrets = this.#secrets.filter(({ minLength }) => minLength <= text.length);
    if (secrets.length === 0) return false;
    return readings(text).some((reading) => {
      const lower = reading.toLowerCase();
      const base64 = standardBase64(reading);
      return secrets.some((secret) => secret.isIn(reading, lower, base64));
    });
  }

  /** Whether a host shows the credential, in any case, and over any number of labels. */
  isInHost(host: string): boolean {
    return [host, host.replaceAll(".", "")].some((text) => {
      const lower = text.toLowerCase();
      const base64 = standardBase64(lower);
      return this.#secrets.some((secret) => secret.isInLowerCase(lower, base64));
    });
  }

  /**
   * Whether a body shows the credential, also where it is compressed. Of what can't be decompressed, the bytes are looked at.
   * @param encoding the Content-Encoding of the body
   * @returns undefined where nobody knows, since it is larger than 256 KiB when it is decompressed
   */
  isInBody(body: Buffer, encoding: string | undefined): boolean | undefined {
    if (this.#secrets.length === 0) return false;
    const decoded = decodings(body, encoding);
    if (decoded === undefined) return undefined;
    return decoded.some((bytes) => this.isIn(bytes.toString("latin1")));
  }
}

/** The error in place of a response that shows the credential. */
export const showsCredential = ({ url }: { readonly url: URL }, status: number): RegistryError =>
  badGateway(`${url.host} answered ${status} with the connector's credential in the response`);

/** Credentials are the same objects from one request to the next. */
const passwords = new WeakMap<Credential, Secret>();

/** A secret, and what it looks like in other forms. */
class Secret {
  readonly text: string;
  /** No form of what is looked for is shorter. */
  readonly minLength: number;
  #forms: Forms | undefined;

  constructor(text: string) {
    this.text = text;
    this.minLength = Math.min(text.length, maxSearchedLength);
  }

  /**
   * @param text as it came, or decoded
   * @param lower the same in lower case
   * @param base64 the same in the standard alphabet of base64
   */
  isIn(text: string, lower: string, base64: string): boolean {
    const forms = this.#allForms();
    return (
      forms.raw.some((form) => text.includes(form)) ||
      lower.includes(forms.hex) ||
      forms.base64.some((form) => base64.includes(form))
    );
  }

  isInLowerCase(lower: string, base64: string): boolean {
    const forms = this.#allForms();
    return (
      forms.raw.some((form) => lower.includes(form.toLowerCase())) ||
      lower.includes(forms.hex) ||
      forms.base64.some((form) => base64.includes(form.toLowerCase()))
    );
  }

  #allForms(): Forms {
    this.#forms ??= formsOf(this.text);
    return this.#forms;
  }
}

interface Forms {
  /** Its bytes of UTF-8 as characters of latin1, and its characters. */
  readonly raw: readonly string[];
  readonly hex: string;
  readonly base64: readonly string[];
}

function formsOf(secret: string): Forms {
  const bytes = Buffer.from(secret).subarray(-maxSearchedLength);
  const end = secret.slice(-maxSearchedLength);
  return {
    raw: plainWord.test(secret) ? [] : [...new Set([bytes.toString("latin1"), end])],
    hex: bytes.toString("hex"),
    base64: [0, 1, 2].map((shift) => insideBase64(bytes, shift)),
  };
}

/**
 * Base64 of bytes as it looks within that of a longer text, where `shift` bytes stand before them in a group of three:
 * without the characters that their neighbours take part in.
 */
function insideBase64(bytes: Buffer, shift: number): string {
  const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString("base64");
  const first = Math.ceil((shift * 8) / 6);
  const last = Math.floor(((shift + bytes.length) * 8) / 6);
  return text.slice(first, last);
}

/** RFC 4648, section 5: the alphabet for URLs differs in two characters. */
const standardBase64 = (text: string): string => text.replaceAll("-", "+").replaceAll("_", "/");

/** A text, and what it says where it is percent-encoded, once or twice, or JSON. */
function readings(text: string): readonly string[] {
  if (!/[%\\]/.test(text)) return [text];
  const found = new Set([text]);
  const once = withoutPercent(text);
  found.add(once).add(withoutPercent(once));
  for (const reading of [...found]) found.add(withoutEscapes(reading));
  return [...found];
}

const withoutPercent = (text: string): string =>
  text.includes("%") ? text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => characterOf(hex)) : text;

/** RFC 8259, section 7. Escapes of white space don't matter here. */
const withoutEscapes = (text: string): string =>
  text.includes("\\")
    ? text.replace(/\\(?:u([0-9A-Fa-f]{4})|(["\\/]))/g, (_, hex, itself) =>
        hex === undefined ? itself : characterOf(hex),
      )
    : text;

const characterOf = (hex: string): string => String.fromCharCode(Number.parseInt(hex, 16));

/** Bodies of errors have 64 KiB at most; four times as much is enough for what people can read. */
const maxDecodedBytes = 256 * 1024;
/** Some are compressed by the registry, and once more by what stands before it. */
const maxEncodings = 3;

/** A body, and what it is once it is decompressed; undefined where that is too large. */
function decodings(body: Buffer, encoding = ""): readonly Buffer[] | undefined {
  const names = encoding.toLowerCase().split(",", maxEncodings);
  const encodings = names.map((name) => name.trim()).filter((name) => name !== "");
  const found = [body];
  for (let count = 0; count < maxEncodings; count += 1) {
    const last = found.at(-1) ?? body;
    const name = encodings.pop() ?? (isGzip(last) ? "gzip" : "");
    const decode = decoders.get(name);
    if (decode === undefined) return found;
    const decoded = attemptDecode(decode, last);
    if (decoded === "too large") return undefined;
    if (decoded === "damaged") return found;
    found.push(decoded);
  }
  return found;
}

const isGzip = (bytes: Buffer): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b;

type Decode = (bytes: Buffer) => Buffer;

/** What came may be the begin of a body alone: everything that can be read of it counts. */
const zlibOptions = { maxOutputLength: maxDecodedBytes, finishFlush: constants.Z_SYNC_FLUSH };

function gunzip(bytes: Buffer): Buffer {
  return gunzipSync(bytes, zlibOptions);
}

/** Some servers send it without the frame of zlib (RFC 1950, section 2.2). */
function inflate(bytes: Buffer): Buffer {
  const hasFrame = ((bytes[0] ?? 0) & 0x0f) === 8;
  return hasFrame ? inflateSync(bytes, zlibOptions) : inflateRawSync(bytes, zlibOptions);
}

function unbrotli(bytes: Buffer): Buffer {
  const finishFlush = constants.BROTLI_OPERATION_FLUSH;
  return brotliDecompressSync(bytes, { maxOutputLength: maxDecodedBytes, finishFlush });
}

function unzstd(bytes: Buffer): Buffer {
  const finishFlush = constants.ZSTD_e_flush;
  return zstdDecompressSync(bytes, { maxOutputLength: maxDecodedBytes, finishFlush });
}

/** The content codings of RFC 9110 (section 8.4.1) and those that came later, by their names. */
const decoders: ReadonlyMap<string, Decode> = new Map([
  ["gzip", gunzip],
  ["x-gzip", gunzip],
  ["deflate", inflate],
  ["br", unbrotli],
  ["zstd", unzstd],
]);

const attemptDecode = (decode: Decode, bytes: Buffer): Buffer | "too large" | "damaged" =>
  attempt(
    () => decode(bytes),
    (error) => (errorCode(error) === "ERR_BUFFER_TOO_LARGE" ? "too large" : "damaged"),
  );
