import { type Document, type ErrorCode, isNode, LineCounter, parseAllDocuments } from "yaml";

/** One document of a YAML text. */
export interface YamlDocument {
  readonly value: unknown;
  /**
   * The line, from 1, in which a part of the document begins.
   * @param path the keys and indexes that lead to it; none for the whole document
   */
  lineOf(path: readonly (string | number)[]): number;
}

/** The documents of a YAML text. */
export interface YamlDocuments {
  readonly documents: readonly YamlDocument[];
  /** One sentence for each document that can't be read, with every reason. */
  readonly problems: readonly string[];
}

/**
 * Parses every document of a YAML 1.2 text, without empty ones. The parser's messages are not shown, since they quote the
 * text, and the text may hold a password: positions are, and what its codes mean.
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
    const read = readYamlDocument(document, lines);
    if (typeof read === "string") problems.push(read);
    else if (read.value !== null) documents.push(read);
  }
  return { documents, problems };
}

function readYamlDocument(document: Document.Parsed, lines: LineCounter): YamlDocument | string {
  if (document.errors.length > 0) return describeErrors(document, lines);
  const lineOf: YamlDocument["lineOf"] = (path) => {
    const part = path.length === 0 ? document.contents : document.getIn(path, true);
    const start = (isNode(part) ? part.range : undefined)?.[0] ?? document.range[0];
    return lines.linePos(start).line;
  };
  try {
    return { lineOf, value: document.toJS() };
  } catch {
    // An alias without an anchor, or more aliases than the library's limit against alias bombs.
    return `the document in line ${lineOf([])}: found aliases that can't be followed, wanted few or none`;
  }
}

/** Of one slip often come many errors, and the first ones tell the most. */
const maxErrors = 5;

/** Names the first error of each line. */
function describeErrors({ errors }: Document.Parsed, lines: LineCounter): string {
  const byLine = new Map<number, string>();
  for (const { code, pos } of errors) {
    const { line, col } = lines.linePos(pos[0]);
    if (!byLine.has(line)) byLine.set(line, `line ${line}, column ${col}: ${errorWords[code]}`);
  }
  const sentences = [...byLine.values()];
  const more = sentences.splice(maxErrors).length;
  if (more > 0) sentences.push(`and ${more} more lines with errors`);
  return sentences.join("; ");
}

/** What the parser's codes say, in the words of whoever writes YAML. */
const errorWords: Readonly<Record<ErrorCode, string>> = {
  ALIAS_PROPS: "found an alias (*) with a tag or an anchor, wanted the alias alone",
  BAD_ALIAS: "found an alias (*) or an anchor (&) without a name, wanted quotes around this text",
  BAD_COLLECTION_TYPE: "found a tag (!) that is not for what follows, wanted none",
  BAD_DIRECTIVE: "found a line with % that is no directive of YAML, wanted none",
  BAD_DQ_ESCAPE: "found a \\ between double quotes that YAML does not know, wanted single quotes",
  BAD_INDENT:
    "found a wrong indentation or an open bracket, wanted the indentation of its neighbours, or the closing bracket",
  BAD_PROP_ORDER: "found a tag or an anchor before a - or a ?, wanted it behind that",
  BAD_SCALAR_START: "found a text that begins with a sign of YAML's own, wanted quotes around it",
  BLOCK_AS_IMPLICIT_KEY:
    'found a second ": " or a list within a value, wanted quotes around the value, or a new line',
  BLOCK_IN_FLOW: "found no comma between two entries of { } or [ ], wanted one",
  DUPLICATE_KEY: "found a key for the second time, wanted it once",
  IMPOSSIBLE: "found something that can't be read, wanted YAML",
  KEY_OVER_1024_CHARS: "found a key of more than 1024 characters, wanted a shorter one",
  MISSING_CHAR: 'found something unfinished, wanted a closing quote, a comma or a ":"',
  MULTILINE_IMPLICIT_KEY: 'found a line without ": ", wanted "key: value"',
  MULTIPLE_ANCHORS: "found two anchors (&), wanted one",
  MULTIPLE_DOCS: "found a second document, wanted --- between the two",
  MULTIPLE_TAGS: "found two tags (!), wanted one",
  NON_STRING_KEY: "found a key that is no text, wanted a text",
  RESOURCE_EXHAUSTION: "found brackets within brackets, too deep, wanted few",
  TAB_AS_INDENT: "found a tab in the indentation, wanted spaces",
  TAG_RESOLVE_FAILED: "found a value that its tag (!) does not take, wanted no tag",
  UNEXPECTED_TOKEN:
    "found something that does not belong here, wanted quotes around the whole value, or a new line",
};
