import { type Document, LineCounter, parseAllDocuments } from "yaml";
import {
  type Connector,
  connectorApiVersion,
  connectorKind,
  parseConnector,
} from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { type Checked, describeProblems } from "../connector/problem.ts";
import { parseSecretDocument, type SecretDocument } from "./secret-document.ts";

/** The objects in the text of one file. */
export interface FolderDocuments {
  readonly connectors: readonly Connector[];
  readonly secrets: readonly SecretDocument[];
  /** What is wrong with each invalid Connector, by `namespace/name`. */
  readonly invalid: ReadonlyMap<string, string>;
  /** What is wrong with the file, one sentence for each document. Never a value of a Secret. */
  readonly problems: readonly string[];
  /** Documents of other kinds: the kind and the line of each. */
  readonly ignored: readonly string[];
}

/** The objects of an empty file. */
export const noDocuments: FolderDocuments = {
  connectors: [],
  secrets: [],
  invalid: new Map(),
  problems: [],
  ignored: [],
};

/** The namespace of a Connector or Secret that names none. */
export const namespaceIfAbsent = "default";

/** Parses the Connectors and Secrets in a YAML text. */
export function readFolderDocuments(text: string): FolderDocuments {
  const yaml = readYamlDocuments(text);
  const read = yaml.documents.map(parseDocument);
  return {
    connectors: read.flatMap(({ connector }) => connector ?? []),
    secrets: read.flatMap(({ secret }) => secret ?? []),
    invalid: new Map(read.flatMap(({ invalid }) => (invalid === undefined ? [] : [invalid]))),
    problems: [...yaml.problems, ...read.flatMap(({ problem }) => problem ?? [])],
    ignored: read.flatMap(({ ignored }) => ignored ?? []),
  };
}

/** What one document holds. */
interface ParsedDocument {
  readonly connector?: Connector;
  readonly secret?: SecretDocument;
  readonly invalid?: readonly [ref: string, reason: string];
  readonly problem?: string;
  readonly ignored?: string;
}

function parseDocument({ line, value }: YamlDocument): ParsedDocument {
  const kind = kindOf(value);
  if (kind === undefined) {
    const wanted = `apiVersion and kind, such as ${connectorApiVersion} ${connectorKind} or v1 Secret`;
    return {
      problem: `the document in line ${line}: found none, or part of one, wanted ${wanted}`,
    };
  }
  const document = withNamespace(value);
  const ref = refOf(document);
  const refuse = ({ problems }: Refused): ParsedDocument & { readonly problem: string } => ({
    problem: `${kind} ${ref ?? "without a name"} in line ${line}: ${describeProblems(problems)}`,
  });
  if (kind === connectorKind) {
    const connector = parseConnector(document);
    if (connector.ok) return { connector: connector.value };
    const { problem } = refuse(connector);
    return ref === undefined ? { problem } : { problem, invalid: [ref, problem] };
  }
  if (kind === "Secret") {
    const secret = parseSecretDocument(document);
    return secret.ok ? { secret: secret.value } : refuse(secret);
  }
  return { ignored: `${kind} in line ${line}` };
}

type Refused = Extract<Checked<never>, { readonly ok: false }>;

/** The kind of a document that looks like an object of Kubernetes. Other text is not shown: it may be part of a half-written file. */
function kindOf(value: unknown): string | undefined {
  const kind = property(value, "kind");
  const version = property(value, "apiVersion");
  if (typeof kind !== "string" || !/^[A-Za-z]{1,63}$/.test(kind)) return undefined;
  return typeof version === "string" ? kind : undefined;
}

function withNamespace(value: unknown): unknown {
  const metadata = property(value, "metadata");
  if (typeof metadata !== "object" || metadata === null) return value;
  const namespace = property(metadata, "namespace") ?? namespaceIfAbsent;
  return { ...(value as object), metadata: { ...metadata, namespace } };
}

function refOf(document: unknown): string | undefined {
  const metadata = property(document, "metadata");
  const namespace = property(metadata, "namespace");
  const name = property(metadata, "name");
  const isPlain = (part: unknown): part is string =>
    typeof part === "string" && /^[a-z0-9.-]{1,253}$/.test(part);
  return isPlain(namespace) && isPlain(name) ? showRef({ namespace, name }) : undefined;
}

/** One document of a YAML text, and where it begins. */
interface YamlDocument {
  /** The line of its first content, from 1. */
  readonly line: number;
  readonly value: unknown;
}

interface YamlDocuments {
  readonly documents: readonly YamlDocument[];
  /** One sentence for each document that can't be read, and why. */
  readonly problems: readonly string[];
}

/**
 * Parses every document of a YAML 1.2 text, without empty ones. Of the parser's messages, only positions and codes are
 * shown, since they quote the text, and the text may hold a password.
 */
function readYamlDocuments(text: string): YamlDocuments {
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
