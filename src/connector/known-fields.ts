import { authParamNames, specParamNames } from "./connector.ts";
import { listOf, property } from "./document.ts";
import { didYouMean } from "./nearest.ts";
import { type Problem, show } from "./problem.ts";

/** The fields that a value may have: those of an object, those of each item of a list, or any. */
type Shape = "anything" | { readonly list: Shape } | { readonly fields: Fields };

/** The fields of an object, and what each of them may hold. */
type Fields = Readonly<Record<string, Shape>>;

const objectOf = (...names: readonly string[]): { readonly fields: Fields } => ({
  fields: Object.fromEntries(names.map((name) => [name, "anything" as const])),
});

/** https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/ */
const metadata = objectOf(
  "name",
  "namespace",
  "labels",
  "annotations",
  "generateName",
  "finalizers",
  "ownerReferences",
  "creationTimestamp",
  "deletionGracePeriodSeconds",
  "deletionTimestamp",
  "generation",
  "managedFields",
  "resourceVersion",
  "selfLink",
  "uid",
);

/** What a Connector may hold: the schema of daemonset/crd.yaml. */
const connectorShape: Shape = {
  fields: {
    apiVersion: "anything",
    kind: "anything",
    metadata,
    spec: {
      fields: {
        connectorClassName: "anything",
        address: "anything",
        addressExtensions: { list: objectOf("name", "value") },
        auth: {
          fields: {
            name: "anything",
            secretRef: objectOf(
              "name",
              "namespace",
              "apiVersion",
              "kind",
              "fieldPath",
              "resourceVersion",
              "uid",
            ),
            serviceAccountRef: objectOf("name", "namespace"),
            params: { list: objectOf("name", "value") },
          },
        },
        caCertSecretRef: objectOf("name"),
        params: { list: objectOf("name", "value") },
      },
    },
    status: "anything",
  },
};

/** What a Secret may hold. */
export const secretShape: Shape = {
  fields: {
    ...objectOf("apiVersion", "kind", "type", "stringData", "data", "immutable").fields,
    metadata,
  },
};

/** Says which field is meant. The name itself may be part of a secret. */
type NameField = (name: string, index: number) => string;

/**
 * Finds fields that nobody reads, and suggests the known field that was meant. As `kubectl apply` does: a misspelt field
 * would be passed over, and a connector without its `secretRef` is an anonymous one.
 */
export function unknownFields(
  document: unknown,
  shape: Shape,
  named: NameField = (name) => `the field ${show(name)}`,
): readonly Problem[] {
  return unknownAt("", document, shape, named);
}

function unknownAt(
  path: string,
  value: unknown,
  shape: Shape,
  named: NameField,
): readonly Problem[] {
  if (shape === "anything") return [];
  if ("list" in shape) {
    return listOf(value).flatMap((item, index) =>
      unknownAt(`${path}.${index}`, item, shape.list, named),
    );
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  const known = Object.keys(shape.fields);
  return Object.entries(value).flatMap(([name, part], index): readonly Problem[] => {
    const field = Object.hasOwn(shape.fields, name) ? shape.fields[name] : undefined;
    if (field !== undefined) return unknownAt(path ? `${path}.${name}` : name, part, field, named);
    const wanted = `one of ${known.join(", ")}${didYouMean(name, known)}`;
    return [{ path: path || "the document", found: named(name, index), wanted }];
  });
}

/**
 * Finds what nobody reads in a Connector document: unknown fields, and parameters whose name is nearly a known one, since
 * a connector without its `rules` allows everything. Other unknown parameters are no problem: Connectors that were
 * written for Alauda's product have some.
 */
export function unknownInConnector(document: unknown): readonly Problem[] {
  const spec = property(document, "spec");
  return [
    ...unknownFields(document, connectorShape),
    ...misspeltParams(
      property(property(spec, "auth"), "params"),
      authParamNames,
      "spec.auth.params",
    ),
    ...misspeltParams(property(spec, "params"), specParamNames, "spec.params"),
  ];
}

function misspeltParams(
  params: unknown,
  known: readonly string[],
  path: string,
): readonly Problem[] {
  return listOf(params).flatMap((param, index): readonly Problem[] => {
    const name = property(param, "name");
    if (typeof name !== "string" || known.includes(name)) return [];
    const suggestion = didYouMean(name, known);
    if (suggestion === "") return [];
    const wanted = `one of ${known.join(", ")}${suggestion}`;
    return [{ path: `${path}.${index}.name`, found: show(name), wanted }];
  });
}
