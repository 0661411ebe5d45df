import type { KubeObject } from "./object-store.ts";

/** An event of a watch whose object is too large to be read: what stands in its metadata. */
export interface SkimmedEvent {
  readonly type: string;
  readonly object: KubeObject;
  /** The length of the event. */
  readonly bytes: number;
}

/** Reads an event piece by piece, and holds nothing of it but its type and the object's metadata. */
export interface EventSkimmer {
  add(chunk: Uint8Array): void;
  /** How many bytes were added. */
  readonly bytes: number;
  /** @returns undefined where the event has no such metadata */
  end(): SkimmedEvent | undefined;
}

const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a];
const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d];

/** No name, uid or version of an object is longer. */
const maxTextBytes = 300;

/** Creates a skimmer of one event: `{"type":…,"object":{"metadata":{…}}}`. */
export function createEventSkimmer(): EventSkimmer {
  const fields = new Map<string, unknown>();
  /** For each open object its current key, for each open list nothing. */
  const path: (string | undefined)[] = [];
  let isKey = false;
  let isInString = false;
  let isEscaped = false;
  let text: number[] = [];
  let bytes = 0;

  /** Whether the current value may be one of those that are looked for. */
  const isNear = (): boolean => path.length <= 3;

  const endText = (): void => {
    if (text.length === 0) return;
    if (isNear() && text.length <= maxTextBytes) {
      const value = parseText(Buffer.from(text).toString("utf8").trim());
      if (!isKey) fields.set(path.join("."), value);
      else if (path.length > 0) path[path.length - 1] = String(value);
    }
    text = [];
  };

  const open = (key: string | undefined): void => {
    path.push(key);
    isKey = key !== undefined;
    text = [];
  };

  const close = (): void => {
    endText();
    path.pop();
    isKey = false;
  };

  const addSign = (sign: number): void => {
    switch (sign) {
      case openBrace:
        open("");
        break;
      case openBracket:
        open(undefined);
        break;
      case closeBrace:
      case closeBracket:
        close();
        break;
      case comma:
        endText();
        isKey = path.at(-1) !== undefined;
        break;
      case colon:
        endText();
        isKey = false;
        break;
      default:
        keep(sign);
    }
  };

  const keep = (byte: number): void => {
    if (isNear() && text.length <= maxTextBytes) text.push(byte);
  };

  const addByte = (byte: number): void => {
    if (!isInString) {
      if (byte === quote) isInString = true;
      if (byte === quote) keep(byte);
      else addSign(byte);
      return;
    }
    keep(byte);
    if (isEscaped) isEscaped = false;
    else if (byte === backslash) isEscaped = true;
    else if (byte === quote) isInString = false;
  };

  return {
    get bytes() {
      return bytes;
    },
    add(chunk) {
      bytes += chunk.length;
      for (const byte of chunk) addByte(byte);
    },
    end() {
      const at = (key: string): unknown => fields.get(`object.metadata.${key}`);
      const metadata = {
        name: at("name"),
        namespace: at("namespace"),
        uid: at("uid"),
        resourceVersion: at("resourceVersion"),
      };
      const type = fields.get("type");
      const { name, uid, resourceVersion } = metadata;
      if ([type, name, uid, resourceVersion].some((value) => typeof value !== "string")) {
        return undefined;
      }
      const generation = at("generation");
      const object = { metadata: { ...metadata, ...(generation ? { generation } : {}) } };
      return { type: String(type), object: object as KubeObject, bytes };
    },
  };
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
