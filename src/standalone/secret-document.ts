import { isNamespace, namespaceRule } from "../connector/connector-ref.ts";
import { property, readDocument } from "../connector/document.ts";
import { secretShape, unknownFields } from "../connector/known-fields.ts";
import type { Checked, Problem } from "../connector/problem.ts";

/** A Secret of a file. Its values are checked by whoever reads them. */
export interface SecretDocument {
  readonly namespace: string;
  readonly name: string;
  /** Whether its certificates are trusted for every connector. */
  readonly trustedByAll: boolean;
  /** The whole document. */
  readonly document: unknown;
}

/** The label of a Secret whose certificates are trusted for every connector. */
export const trustedByAllLabel = "connectors.cpaas.io/ca-cert";

const secretName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const typeName = /^[a-zA-Z0-9./-]{0,253}$/;
const knownKeys: ReadonlySet<string> = new Set([
  "username",
  "password",
  ".dockerconfigjson",
  "ca.crt",
  "tls.crt",
  "tls.key",
]);
const base64 = /^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/**
 * Checks what the API server would check. A slip of indentation or a lost quote can turn a password into anything, even
 * a name or a key, so problems show no text of the document.
 */
export function parseSecretDocument(document: unknown): Checked<SecretDocument> {
  const reader = readDocument(document);
  const name = reader.at("metadata.name");
  const namespace = reader.at("metadata.namespace");
  const problems = [
    ...wrongText("apiVersion", reader.at("apiVersion"), (text) => text === "v1", "v1"),
    ...wrongText("metadata.name", name, (text) => secretName.test(text), "a DNS subdomain"),
    ...wrongText("metadata.namespace", namespace, isNamespace, namespaceRule),
    ...wrongText("type", reader.at("type") ?? "", (text) => typeName.test(text), "a Secret type"),
    ...wrongValues("stringData", reader.at("stringData"), () => true),
    ...wrongValues("data", reader.at("data"), (text) => base64.test(text.replace(/\s/g, ""))),
  ];
  if (problems.length > 0 || typeof name !== "string" || typeof namespace !== "string") {
    return { ok: false, problems };
  }
  const label = property(reader.at("metadata.labels"), trustedByAllLabel);
  return { ok: true, value: { namespace, name, trustedByAll: String(label) === "true", document } };
}

/** The fields of a Secret that nobody reads. Only names that can't be part of a password are shown. */
export const unknownInSecret = (document: unknown): readonly Problem[] =>
  unknownFields(document, secretShape, (name, index) =>
    knownKeys.has(name)
      ? `${name} (it belongs under stringData)`
      : `an unknown field in place ${index + 1}`,
  );

function wrongText(
  path: string,
  value: unknown,
  isRight: (text: string) => boolean,
  wanted: string,
): readonly Problem[] {
  if (typeof value !== "string") return [{ path, found: kindOf(value), wanted }];
  return isRight(value) ? [] : [{ path, found: "other text", wanted }];
}

function wrongValues(
  path: string,
  values: unknown,
  isRight: (text: string) => boolean,
): readonly Problem[] {
  if (values === undefined || values === null) return [];
  if (typeof values !== "object" || Array.isArray(values)) {
    return [{ path, found: kindOf(values), wanted: "a map of strings" }];
  }
  return Object.entries(values).flatMap(([key, value], index): readonly Problem[] => {
    const at = `${path}.${knownKeys.has(key) ? key : `<key ${index + 1}>`}`;
    if (typeof value !== "string") {
      return [{ path: at, found: kindOf(value), wanted: 'a text (in quotes: "123", "true")' }];
    }
    if (isRight(value)) return [];
    return [
      {
        path: at,
        found: "text that is not base64",
        wanted: "base64 (plain text goes under stringData)",
      },
    ];
  });
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "a map" : `a ${typeof value}`;
}
