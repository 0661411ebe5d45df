import { type Connector, connectorApiVersion, connectorClass, connectorKind } from "./connector.ts";
import { connectorNameRule, isConnectorName, isNamespace, namespaceRule } from "./connector-ref.ts";
import { type DocumentReader, property, readDocument } from "./document.ts";
import { type Checked, show } from "./problem.ts";
import { parseRegistryAddress, type RegistryAddress } from "./registry-address.ts";
import { isRepository } from "./repository.ts";

const secretName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const secretNameRule = "the name of a Secret (a DNS subdomain of at most 253 characters)";
const hostPattern = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

/**
 * Reads a Connector document as Kubernetes gives it and as people write it. Unknown fields and
 * parameters are passed over, as Kubernetes does.
 */
export function parseConnector(document: unknown): Checked<Connector> {
  const reader = readDocument(document);
  if (reader.at("apiVersion") !== connectorApiVersion) {
    reader.refuse("apiVersion", connectorApiVersion);
  }
  if (reader.at("kind") !== connectorKind) reader.refuse("kind", connectorKind);
  const name = required(reader, "metadata.name", isConnectorName, connectorNameRule);
  const namespace = required(reader, "metadata.namespace", isNamespace, namespaceRule);
  const className = required(
    reader,
    "spec.connectorClassName",
    (text) => text === connectorClass,
    `"${connectorClass}", the one connector class there is`,
  );
  const address = addressAt(reader, reader.at("spec.address"), "spec.address");
  const addressExtensions = reader
    .list("spec.addressExtensions")
    .flatMap((text, index) => addressAt(reader, text, `spec.addressExtensions.${index}`) ?? []);
  const secret = secretNameAt(reader, namespace);
  const caCertSecret = optional(reader, "spec.caCertSecretRef.name", secretName, secretNameRule);
  const probeRepository = probeRepositoryOf(reader);
  const allowedRealmHosts = hostsOf(reader, "allowedRealmHosts");
  const allowedRedirectHosts = hostsOf(reader, "allowedRedirectHosts");
  const uid = reader.text("metadata.uid") ?? `${namespace}/${name}`;
  if (!(name && namespace && className && address) || reader.problems.length > 0) {
    return { ok: false, problems: reader.problems };
  }
  return {
    ok: true,
    value: {
      namespace,
      name,
      uid,
      address,
      addressExtensions,
      ...(secret === undefined ? {} : { secretName: secret }),
      ...(caCertSecret === undefined ? {} : { caCertSecretName: caCertSecret }),
      ...(probeRepository === undefined ? {} : { probeRepository }),
      allowedRealmHosts,
      allowedRedirectHosts,
    },
  };
}

function required(
  reader: DocumentReader,
  path: string,
  isRight: (text: string) => boolean,
  wanted: string,
): string | undefined {
  const value = reader.at(path);
  if (typeof value === "string" && isRight(value)) return value;
  reader.refuse(path, wanted);
  return undefined;
}

function optional(
  reader: DocumentReader,
  path: string,
  pattern: RegExp,
  wanted: string,
): string | undefined {
  const value = reader.at(path) ?? undefined;
  if (value === undefined || (typeof value === "string" && pattern.test(value))) return value;
  reader.refuse(path, wanted);
  return undefined;
}

function addressAt(
  reader: DocumentReader,
  text: unknown,
  path: string,
): RegistryAddress | undefined {
  const address = parseRegistryAddress(text, path);
  if (address.ok) return address.value;
  reader.problems.push(...address.problems);
  return undefined;
}

/** Undefined for an anonymous connector. A Secret of another namespace would hand one tenant the password of another. */
function secretNameAt(reader: DocumentReader, namespace: string | undefined): string | undefined {
  const auth = reader.at("spec.auth") ?? undefined;
  if (auth === undefined) return undefined;
  const method = reader.text("spec.auth.name");
  if (method !== undefined && method !== "tokenAuth")
    reader.refuse("spec.auth.name", '"tokenAuth"');
  if ((reader.at("spec.auth.secretRef") ?? undefined) === undefined) return undefined;
  const owner = reader.text("spec.auth.secretRef.namespace");
  if (owner !== undefined && owner !== "" && owner !== namespace) {
    reader.refuse("spec.auth.secretRef.namespace", `the Connector's own namespace, ${namespace}`);
  }
  return required(
    reader,
    "spec.auth.secretRef.name",
    (text) => secretName.test(text),
    secretNameRule,
  );
}

function probeRepositoryOf(reader: DocumentReader): string | undefined {
  const value = paramAt(reader, "spec.auth.params", "repository");
  if (value === undefined || value.content === "") return undefined;
  if (typeof value.content === "string" && isRepository(value.content)) return value.content;
  reader.refuse(value.path, "the name of a repository, such as library/busybox");
  return undefined;
}

/** Host names of a parameter whose value is a list, or a text with commas. */
function hostsOf(reader: DocumentReader, name: string): readonly string[] {
  const value = paramAt(reader, "spec.params", name);
  if (value === undefined) return [];
  const hosts =
    typeof value.content === "string"
      ? value.content.split(",").map((host) => host.trim())
      : value.content;
  if (Array.isArray(hosts) && hosts.every((host) => hostPattern.test(String(host)))) return hosts;
  reader.problems.push({
    path: value.path,
    found: show(value.content),
    wanted: "host names without scheme and port, separated by commas: auth.example.com,10.1.2.3",
  });
  return [];
}

function paramAt(
  reader: DocumentReader,
  path: string,
  name: string,
): { readonly content: unknown; readonly path: string } | undefined {
  const index = reader.list(path).findIndex((param) => property(param, "name") === name);
  if (index < 0) return undefined;
  const at = `${path}.${index}.value`;
  return { content: reader.at(at), path: at };
}
