import {
  type AccessRule,
  parseAccessRules,
  parseTagPatterns,
  patternExcess,
  patternsOfRules,
} from "./access-rules.ts";
import {
  type ConnectorRef,
  connectorNameRule,
  isConnectorName,
  isNamespace,
  namespaceRule,
} from "./connector-ref.ts";
import { type DocumentReader, listOf, paramIn, property, readDocument } from "./document.ts";
import {
  checkIdentityAddress,
  type IdentityAuth,
  identityMethods,
  identityParamNames,
  type Platform,
  readIdentityAuth,
} from "./identity-auth.ts";
import { type Checked, type Problem, show } from "./problem.ts";
import { parseRegistryAddress, type RegistryAddress } from "./registry-address.ts";
import { isRepository } from "./repository.ts";

/** A checked Connector. Everything in it is safe to dial, to render and to show. */
export interface Connector extends ConnectorRef {
  /** Differs between two connectors of one name that were made one after the other. */
  readonly uid: string;
  readonly address: RegistryAddress;
  /** The address in `spec.address`, where `address` is one of the further ones: a login is chosen by it. */
  readonly mainAddress?: RegistryAddress;
  /** Further addresses that carry the same credentials in forward mode. */
  readonly addressExtensions: readonly RegistryAddress[];
  /** The Secret with the registry's user and password, in the connector's own namespace; without it and `identity` the registry is used anonymously. */
  readonly secretName?: string;
  /** How the connector logs in where it does so with an identity, and has no Secret for that. */
  readonly identity?: IdentityAuth;
  /** The Secret with certificates to trust for this registry, in the connector's own namespace. */
  readonly caCertSecretName?: string;
  /** The Secret with the client certificate for this registry, in the connector's own namespace. */
  readonly clientCertSecretName?: string;
  /** The repository for which the authentication probe requests a token. */
  readonly probeRepository?: string;
  /** Hosts, beside its own domain, to which this registry may send for a token. */
  readonly allowedRealmHosts: readonly string[];
  /** Hosts with private addresses to which this registry may redirect. */
  readonly allowedRedirectHosts: readonly string[];
  /** Whether clients of forward mode follow this registry's redirects for blobs themselves. */
  readonly passesRedirects?: boolean;
  /** What may be done with the account. Without rules, everything is allowed. */
  readonly rules?: readonly AccessRule[];
  /** Patterns of tags that a push may create but not change. */
  readonly immutableTags?: readonly string[];
  /** What works for now, and what the next release refuses. Absent where there is nothing of the kind. */
  readonly deprecated?: readonly Problem[];
}

/** The address by which the login of a connector is chosen, where its Secret has several. */
export const loginAddressOf = ({ address, mainAddress = address }: Connector): RegistryAddress =>
  mainAddress;

/** The `apiVersion` of a Connector document. */
export const connectorApiVersion = "connectors.alauda.io/v1alpha1";
/** The `kind` of a Connector document. */
export const connectorKind = "Connector";
/** The one connector class there is: registries that speak the OCI distribution protocol. */
export const connectorClass = "oci";
/** Other names of that class in Connectors that were written for Alauda's product. */
const classAliases: readonly string[] = ["harbor"];
/** Whether a class is that of registries, by any of its names. */
export const isOciClass = (name: unknown): boolean =>
  name === connectorClass || (typeof name === "string" && classAliases.includes(name));
/** The method of authentication with a Secret. */
const authMethod = "tokenAuth";
/** Other names of that method in Connectors that were written for Alauda's product. */
const authAliases: readonly string[] = ["basicAuth", "basic-auth"];

/** The parameters in `spec.params` of a Connector. */
export const specParamNames = [
  "allowedRealmHosts",
  "allowedRedirectHosts",
  "clientCertSecret",
  "redirects",
  "rules",
  "immutableTags",
] as const;

type SpecParamName = (typeof specParamNames)[number];

/** The parameters in `spec.auth.params`. */
export const authParamNames: readonly string[] = ["repository", ...identityParamNames];

/** The name under which an object's managedFields list the fields that the controller writes. */
export const fieldManager = "oci-connector";

/**
 * The field manager that writes the status of an object, where it is another one than our controller.
 * https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers
 */
export function otherStatusManager(object: unknown): string | undefined {
  const managers = listOf(property(property(object, "metadata"), "managedFields"))
    .filter((entry) => property(entry, "subresource") === "status")
    .map((entry) => property(entry, "manager"));
  const isOther = (name: unknown): name is string =>
    typeof name === "string" && name !== fieldManager;
  return managers.find(isOther);
}

const secretName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

const secretNameRule = "the name of a Secret (a DNS subdomain of at most 253 characters)";

const hostPattern = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

/**
 * Parses a Connector document as Kubernetes returns it and as people write it. Unknown fields and
 * parameters are ignored: in a cluster kubectl names the fields, and in a folder `unknownInConnector` does. Aliases of the
 * class and of the method are taken unless another controller writes the Connector's status: then they are its own.
 * @param platform decides which identities there are
 * @returns the connector, or every problem of the document
 */
export function parseConnector(
  document: unknown,
  platform: Platform = "cluster",
): Checked<Connector> {
  const reader = readDocument(document);
  if (reader.at("apiVersion") !== connectorApiVersion) {
    reader.refuse("apiVersion", connectorApiVersion);
  }
  if (reader.at("kind") !== connectorKind) reader.refuse("kind", connectorKind);
  const name = required(reader, "metadata.name", isConnectorName, connectorNameRule);
  const namespace = required(reader, "metadata.namespace", isNamespace, namespaceRule);
  const otherManager = otherStatusManager(document);
  const className = classNameOf(reader, otherManager);
  const address = addressAt(reader, "spec.address");
  const addressExtensions = addressExtensionsOf(reader);
  const { secret, identity } = authOf(reader, { namespace, otherManager, platform });
  if (identity) checkIdentityAddress(reader, identity, address, addressExtensions.length);
  const caCertSecret = secretAt(reader, "spec.caCertSecretRef");
  const probeRepository = probeRepositoryOf(reader);
  const params = reader.list("spec.params");
  const allowedRealmHosts = hostsIn(reader, params, "allowedRealmHosts");
  const allowedRedirectHosts = hostsIn(reader, params, "allowedRedirectHosts");
  const clientCertSecret = checkedParam(reader, params, "clientCertSecret", parseSecretName);
  const redirects = checkedParam(reader, params, "redirects", parseRedirects);
  const restrictions = restrictionsIn(reader, params);
  const uid = reader.text("metadata.uid") || `${namespace}/${name}`;
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
      ...secretNames(secret, caCertSecret, clientCertSecret),
      ...(identity === undefined ? {} : { identity }),
      ...(probeRepository === undefined ? {} : { probeRepository }),
      allowedRealmHosts,
      allowedRedirectHosts,
      ...(redirects === "pass" ? { passesRedirects: true } : {}),
      ...restrictions,
    },
  };
}

const secretNames = (
  login: string | undefined,
  caCert: string | undefined,
  clientCert: string | undefined,
): Pick<Connector, "secretName" | "caCertSecretName" | "clientCertSecretName"> => ({
  ...(login === undefined ? {} : { secretName: login }),
  ...(caCert === undefined ? {} : { caCertSecretName: caCert }),
  ...(clientCert === undefined ? {} : { clientCertSecretName: clientCert }),
});

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

/**
 * The class of a Connector, which is ours.
 * @param otherManager whoever else writes the Connector's status
 */
function classNameOf(reader: DocumentReader, otherManager: string | undefined): string | undefined {
  const own = `"${connectorClass}"`;
  const isOurs = (text: string): boolean =>
    text === connectorClass || (otherManager === undefined && classAliases.includes(text));
  const wanted =
    otherManager === undefined
      ? `${own}, the only connector class`
      : `${own}: the Connector is left to ${show(otherManager)}, which writes its status`;
  return required(reader, "spec.connectorClassName", isOurs, wanted);
}

function addressAt(reader: DocumentReader, path: string): RegistryAddress | undefined {
  const address = parseRegistryAddress(reader.at(path), path);
  if (address.ok) return address.value;
  reader.problems.push(...address.problems);
  return undefined;
}

/** The further addresses. Existing manifests write `{name, value}`. The name means nothing, so a plain text will do. */
function addressExtensionsOf(reader: DocumentReader): readonly RegistryAddress[] {
  const path = "spec.addressExtensions";
  return reader.list(path).flatMap((entry, index) => {
    const at = typeof entry === "object" ? `${path}.${index}.value` : `${path}.${index}`;
    return addressAt(reader, at) ?? [];
  });
}

/** How a connector logs in: with a Secret, with an identity, or with neither. */
interface Auth {
  readonly secret?: string | undefined;
  readonly identity?: IdentityAuth | undefined;
}

/**
 * How a connector logs in. A Secret or a ServiceAccount of another namespace is a problem, since it would hand one tenant
 * the login of another.
 */
function authOf(
  reader: DocumentReader,
  options: {
    readonly namespace: string | undefined;
    readonly otherManager: string | undefined;
    readonly platform: Platform;
  },
): Auth {
  if (!reader.hasObject("spec.auth")) return {};
  const { namespace, otherManager, platform } = options;
  const method = reader.text("spec.auth.name") ?? authMethod;
  if (identityMethods.standalone.includes(method)) {
    return { identity: readIdentityAuth(reader, method, options) };
  }
  const methods = otherManager === undefined ? [authMethod, ...authAliases] : [authMethod];
  if (!methods.includes(method)) {
    const all = [authMethod, ...identityMethods[platform]];
    reader.refuse("spec.auth.name", all.map((name) => `"${name}"`).join(" or "));
  }
  const owner = reader.text("spec.auth.secretRef.namespace");
  if (owner !== undefined && owner !== "" && owner !== namespace) {
    reader.refuse("spec.auth.secretRef.namespace", "nothing, or the Connector's own namespace");
  }
  return { secret: secretAt(reader, "spec.auth.secretRef") };
}

function secretAt(reader: DocumentReader, path: string): string | undefined {
  if (!reader.hasObject(path)) return undefined;
  return required(reader, `${path}.name`, (text) => secretName.test(text), secretNameRule);
}

function probeRepositoryOf(reader: DocumentReader): string | undefined {
  const param = paramIn(reader.list("spec.auth.params"), "repository");
  if (param === undefined || param.value === "") return undefined;
  if (typeof param.value === "string" && isRepository(param.value)) return param.value;
  reader.refuse(
    `spec.auth.params.${param.index}.value`,
    "the name of a repository, such as library/busybox",
  );
  return undefined;
}

function checkedParam<T>(
  reader: DocumentReader,
  params: readonly unknown[],
  name: SpecParamName,
  parse: (value: unknown, path: string) => Checked<T>,
): T | undefined {
  const param = paramIn(params, name);
  if (param === undefined) return undefined;
  const parsed = parse(param.value, `spec.params.${param.index}.value`);
  if (parsed.ok) return parsed.value;
  reader.problems.push(...parsed.problems);
  return undefined;
}

/** What may be done with the account. Of too many patterns it is said that the next release refuses them. */
function restrictionsIn(
  reader: DocumentReader,
  params: readonly unknown[],
): Pick<Connector, "rules" | "immutableTags" | "deprecated"> {
  const rules = checkedParam(reader, params, "rules", parseAccessRules);
  const immutableTags = checkedParam(reader, params, "immutableTags", parseTagPatterns);
  const pathOf = (name: SpecParamName): string =>
    `spec.params.${paramIn(params, name)?.index}.value`;
  const deprecated = [
    rules && patternExcess(patternsOfRules(rules), pathOf("rules")),
    immutableTags && patternExcess(immutableTags, pathOf("immutableTags")),
  ].filter((problem) => problem !== undefined);
  return {
    ...(rules === undefined ? {} : { rules }),
    ...(immutableTags === undefined ? {} : { immutableTags }),
    ...(deprecated.length === 0 ? {} : { deprecated }),
  };
}

function parseSecretName(value: unknown, path: string): Checked<string> {
  if (typeof value === "string" && secretName.test(value)) return { ok: true, value };
  const wanted = `${secretNameRule}, in the Connector's own namespace`;
  return { ok: false, problems: [{ path, found: show(value), wanted }] };
}

function parseRedirects(value: unknown, path: string): Checked<"follow" | "pass"> {
  if (value === "follow" || value === "pass") return { ok: true, value };
  const wanted = '"follow" (the proxy does) or "pass" (clients of the forward proxy do)';
  return { ok: false, problems: [{ path, found: show(value), wanted }] };
}

/** Host names of a parameter whose value is a list, or a text with commas. */
function hostsIn(
  reader: DocumentReader,
  params: readonly unknown[],
  name: SpecParamName,
): readonly string[] {
  const param = paramIn(params, name);
  if (param === undefined) return [];
  const hosts = hostNames(param.value);
  if (hosts === undefined) {
    reader.refuse(
      `spec.params.${param.index}.value`,
      "host names without scheme and port, separated by commas: auth.example.com,10.1.2.3",
    );
  }
  return hosts ?? [];
}

function hostNames(value: unknown): readonly string[] | undefined {
  const entries = typeof value === "string" ? value.split(",") : value;
  if (!Array.isArray(entries)) return undefined;
  const hosts = entries
    .map((entry) => (typeof entry === "string" ? entry.trim().toLowerCase() : entry))
    .filter((entry) => entry !== "");
  return hosts.every(isHostName) ? hosts : undefined;
}

const isHostName = (value: unknown): value is string =>
  typeof value === "string" && hostPattern.test(value);
