/** The documents of a connector that logs in, as a person writes them. */
export interface ConnectorDocuments {
  /** `team-a/hub`; its Secret has the same name. */
  readonly ref: string;
  readonly address: string;
  /** Without it the connector is anonymous. */
  readonly login?: { readonly username: string; readonly password: string };
  /** What the registry's certificate is by, PEM. */
  readonly ca?: string;
  /** What the registry is shown, PEM. */
  readonly clientCertificate?: { readonly certificate: string; readonly privateKey: string };
  /** Of the connector's spec. */
  readonly params?: readonly { readonly name: string; readonly value: string }[];
}

/** A Connector, and the Secrets that it names. */
export function connectorYaml({
  ref,
  address,
  login,
  ca,
  clientCertificate,
  params = [],
}: ConnectorDocuments): string {
  const [namespace, name] = ref.split("/");
  const metadata = { namespace, name };
  const auth = { name: "tokenAuth", secretRef: { name } };
  const documents = [
    {
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata,
      spec: {
        connectorClassName: "oci",
        address,
        params: clientCertificate
          ? [...params, { name: "clientCertSecret", value: `${name}-client` }]
          : params,
        ...(login && { auth }),
        ...(ca !== undefined && { caCertSecretRef: { name: `${name}-ca` } }),
      },
    },
    ...(login ? [secret(metadata, "kubernetes.io/basic-auth", { ...login })] : []),
    ...(ca === undefined
      ? []
      : [secret({ namespace, name: `${name}-ca` }, "Opaque", { "ca.crt": ca })]),
    ...(clientCertificate === undefined
      ? []
      : [
          secret({ namespace, name: `${name}-client` }, "kubernetes.io/tls", {
            "tls.crt": clientCertificate.certificate,
            "tls.key": clientCertificate.privateKey,
          }),
        ]),
  ];
  return documents.map((document) => JSON.stringify(document, undefined, 2)).join("\n---\n");
}

const secret = (metadata: object, type: string, stringData: object): object => ({
  apiVersion: "v1",
  kind: "Secret",
  metadata,
  type,
  stringData,
});
