import { type Document, LineCounter, parseAllDocuments } from "yaml";

/** One document of a YAML text, and where it begins. */
export interface YamlDocument {
  /** The line of its first content, from 1. */
  readonly line: number;
  readonly value: unknown;
}

export interface YamlDocuments {
  readonly documents: readonly YamlDocument[];
  /** One sentence for each document that can't be read, and why. */
  readonly problems: readonly string[];
}

/**
 * Reads every document of a YAML 1.2 text; empty ones don't count. What the parser says is not
 * passed on beyond a position and a code, since it quotes the text, and the text may hold a password.
 */
export function readYamlDocuments(text: string): YamlDocuments {
  const lines = new LineCounter();
  // The parser prints warnings, with keys in them, unless the level is "error".
  const parsed = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    logLevel: "error",
  });
  const documents: YamlDocument[] = [];
  const problems: string[] = [];
  for (const document of parsed) {
    const read = readDocument(document, lines);
    if (typeof read === "string") problems.push(read);
    else if (read.value !== null) documents.push(read);
  }
  return { documents, problems };
}

function readDocument(document: Document.Parsed, lines: LineCounter): YamlDocument | string {
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    return `line ${line}, column ${col}: found ${error.code}, wanted YAML`;
  }
  const line = lines.linePos(document.contents?.range[0] ?? document.range[0]).line;
  try {
    return { line, value: document.toJS() };
  } catch {
    // An alias without an anchor, or more aliases than the library's limit against alias bombs.
    return `the document in line ${line}: found aliases that can't be followed, wanted few or none`;
  }
}
