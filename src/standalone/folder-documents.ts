import {
  type Connector,
  connectorApiVersion,
  connectorKind,
  parseConnector,
} from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { unknownInConnector } from "../connector/known-fields.ts";
import { type Checked, describeProblems, type Problem } from "../connector/problem.ts";
import { parseSecretDocument, type SecretDocument, unknownInSecret } from "./secret-document.ts";
import { readYamlDocuments, type YamlDocument } from "./yaml-documents.ts";

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
  const read = yaml.documents.flatMap(objectsOf).map(parseObject);
  return {
    connectors: read.flatMap(({ connector }) => connector ?? []),
    secrets: read.flatMap(({ secret }) => secret ?? []),
    invalid: new Map(read.flatMap(({ invalid }) => (invalid === undefined ? [] : [invalid]))),
    problems: [...yaml.problems, ...read.flatMap(({ problem }) => problem ?? [])],
    ignored: read.flatMap(({ ignored }) => ignored ?? []),
  };
}

/** One object of a text: a document, or an item of a List. */
interface FolderObject {
  /** The line of its first content, from 1. */
  readonly line: number;
  readonly value: unknown;
}

/** Kubernetes has no List within a List. By an alias one could even contain itself. */
const maxListDepth = 4;

/** The object of a document, or those of its List, as `kubectl get -o yaml` prints several objects. */
function objectsOf(document: YamlDocument): readonly FolderObject[] {
  const expand = (value: unknown, path: readonly (string | number)[]): readonly FolderObject[] => {
    const items = path.length < 2 * maxListDepth ? itemsOf(value) : undefined;
    if (items === undefined) return [{ line: document.lineOf(path), value }];
    return items.flatMap((item, index) => expand(item, [...path, "items", index]));
  };
  return expand(document.value, []);
}

/** The items of a List. Those of the API server's own lists, such as a SecretList, may lack what the list says for all. */
function itemsOf(value: unknown): readonly unknown[] | undefined {
  const [, itemKind] = /^(|Connector|Secret)List$/.exec(kindOf(value) ?? "") ?? [];
  const items = property(value, "items") ?? [];
  if (itemKind === undefined || !Array.isArray(items)) return undefined;
  if (itemKind === "") return items;
  const shared = { apiVersion: property(value, "apiVersion"), kind: itemKind };
  return items.map((item) =>
    typeof item === "object" && item !== null && !Array.isArray(item)
      ? { ...shared, ...item }
      : item,
  );
}

/** What one object holds. */
interface ParsedObject {
  readonly connector?: Connector;
  readonly secret?: SecretDocument;
  readonly invalid?: readonly [ref: string, reason: string];
  readonly problem?: string;
  readonly ignored?: string;
}

function parseObject({ line, value }: FolderObject): ParsedObject {
  const kind = kindOf(value);
  if (kind === undefined) {
    const wanted = `apiVersion and kind, such as ${connectorApiVersion} ${connectorKind} or v1 Secret`;
    return {
      problem: `the document in line ${line}: found none, or part of one, wanted ${wanted}`,
    };
  }
  const document = withNamespace(value);
  const ref = refOf(document);
  const refuse = ({ problems }: Refused): ParsedObject & { readonly problem: string } => ({
    problem: `${kind} ${ref ?? "without a name"} in line ${line}: ${describeProblems(problems)}`,
  });
  if (kind === connectorKind) {
    const connector = strictly(
      parseConnector(document, "standalone"),
      unknownInConnector(document),
    );
    if (connector.ok) return { connector: connector.value };
    const { problem } = refuse(connector);
    return ref === undefined ? { problem } : { problem, invalid: [ref, problem] };
  }
  if (kind === "Secret") {
    const secret = strictly(parseSecretDocument(document), unknownInSecret(document));
    return secret.ok ? { secret: secret.value } : refuse(secret);
  }
  return { ignored: `${kind} in line ${line}` };
}

/** Refuses what has unknown fields, too, as `kubectl apply` does. */
function strictly<T>(checked: Checked<T>, unknown: readonly Problem[]): Checked<T> {
  if (unknown.length === 0) return checked;
  return { ok: false, problems: [...unknown, ...(checked.ok ? [] : checked.problems)] };
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
