import type { AccessRule } from "./access-rules.ts";
import type { ConnectorRef } from "./connector-ref.ts";
import type { RegistryAddress } from "./registry-address.ts";

/** A checked Connector: everything in it is safe to dial, to render and to show. */
export interface Connector extends ConnectorRef {
  /** Differs between two connectors of one name that were made one after the other. */
  readonly uid: string;
  readonly address: RegistryAddress;
  /** Further addresses that carry the same credentials in forward mode. */
  readonly addressExtensions: readonly RegistryAddress[];
  /** The Secret with the registry's user and password, in the connector's own namespace; without it the registry is used anonymously. */
  readonly secretName?: string;
  /** The Secret with certificates to trust for this registry, in the connector's own namespace. */
  readonly caCertSecretName?: string;
  /** The repository that the authentication probe asks a token for. */
  readonly probeRepository?: string;
  /** Hosts, beside its own domain, to which this registry may send for a token. */
  readonly allowedRealmHosts: readonly string[];
  /** Hosts with private addresses to which this registry may redirect. */
  readonly allowedRedirectHosts: readonly string[];
  /** Whether clients of forward mode go to the hosts themselves to which this registry redirects for a blob. */
  readonly passesRedirects?: boolean;
  /** What may be done with the account; without them, everything. */
  readonly rules?: readonly AccessRule[];
  /** Patterns of tags that a push may make and not change. */
  readonly immutableTags?: readonly string[];
}

export const connectorApiVersion = "connectors.alauda.io/v1alpha1";
export const connectorKind = "Connector";
/** The one connector class there is: registries that speak the OCI distribution protocol. */
export const connectorClass = "oci";
