import type { Connector } from "../connector/connector.ts";
import { connectorApiVersion, parseConnector } from "../connector/connector.ts";
import type { ConnectorRef } from "../connector/connector-ref.ts";
import {
  parseCertificates,
  parseClientCertificate,
  parseCredential,
} from "../connector/credential.ts";
import type { MayUse, ServiceAccountRef, UpstreamSecrets } from "../connector/platform.ts";
import { serviceHosts } from "../connector/proxy-address.ts";
import { sharedCaLabel } from "../kube/read-upstream-secrets.ts";
import type { Probe } from "../upstream/probe.ts";
import { checkAccess } from "./check-access.ts";
import {
  checkConditions,
  checkConnector,
  checkConnectorService,
  checkDns,
  type LookupAddresses,
  statusConditions,
} from "./check-connector.ts";
import { checkWay } from "./check-egress.ts";
import { checkRegistry } from "./check-registry.ts";
import {
  checkCaSecret,
  checkClientCertificate,
  checkIdentity,
  checkLogin,
  type ReferredSecret,
} from "./check-secrets.ts";
import type { ClusterReader } from "./cluster-reader.ts";
import type { Installation } from "./diagnose-installation.ts";
import { type Finding, fine, notChecked } from "./report.ts";

/** What to check of a connector, and how. */
export interface DiagnoseConnectorOptions {
  readonly cluster: ClusterReader;
  readonly ref: ConnectorRef;
  /** The ServiceAccount whose rights are checked; undefined for none. */
  readonly account: ServiceAccountRef | undefined;
  readonly mayUse: MayUse;
  readonly installNamespace: string;
  readonly proxyServiceName: string;
  readonly installation: Pick<Installation, "settings" | "proxyService" | "egressLogin">;
  readonly probe: Probe;
  /** Undefined outside of the cluster, where nobody knows its names. */
  readonly resolve: LookupAddresses | undefined;
  readonly signal: AbortSignal;
}

/** Checks one connector and everything that it needs. */
export async function diagnoseConnector(
  options: DiagnoseConnectorOptions,
): Promise<readonly Finding[]> {
  const { cluster, ref } = options;
  const { namespace, name } = ref;
  const object = await cluster.get(
    `/apis/${connectorApiVersion}/namespaces/${namespace}/connectors/${name}`,
  );
  const document = object.state === "found" ? object.value : undefined;
  const parsed = parseConnector(document);
  const result = parsed.ok ? { connector: parsed.value } : { problems: parsed.problems };
  const connectorFinding = checkConnector(object, result, ref);
  const access = await accessFindings(options, result.connector);
  if (document === undefined) return [connectorFinding, ...access];
  const conditions = checkConditions(document);
  if (result.connector === undefined) return [connectorFinding, ...conditions, ...access];
  return [
    connectorFinding,
    ...conditions,
    ...(await addressFindings(options)),
    ...checkWay(result.connector, options.installation.settings.egress),
    ...(await registryFindings(options, result.connector, document)),
    ...access,
  ];
}

async function accessFindings(
  { cluster, ref, account, mayUse, installation }: DiagnoseConnectorOptions,
  connector: Connector | undefined,
): Promise<readonly Finding[]> {
  const { defaultPermission } = installation.settings;
  if (account === undefined) {
    if (defaultPermission === "namespace") return [rightsWithoutRole(ref)];
    return [
      notChecked(
        "rights",
        "no ServiceAccount was named",
        "name one with --service-account NAMESPACE/NAME",
      ),
    ];
  }
  const observed = await cluster.get(
    `/api/v1/namespaces/${account.namespace}/serviceaccounts/${account.name}`,
  );
  return checkAccess({ account, ref, connector, mayUse, defaultPermission, observed });
}

const rightsWithoutRole = ({ namespace }: ConnectorRef): Finding =>
  fine(
    "rights",
    `every ServiceAccount of namespace ${namespace} may pull and push without a Role, since the installation has DEFAULT_PERMISSION=namespace`,
  );

async function addressFindings(options: DiagnoseConnectorOptions): Promise<readonly Finding[]> {
  const { cluster, ref, installation, resolve } = options;
  const { clusterDomain } = installation.settings;
  const target = `${options.proxyServiceName}.${options.installNamespace}.svc.${clusterDomain}`;
  const host = serviceHosts(clusterDomain)(ref).http ?? "";
  const [name = ""] = host.split(".", 1);
  const { namespace } = ref;
  const service = await cluster.get(`/api/v1/namespaces/${namespace}/services/${name}`);
  return [
    checkConnectorService(service, { namespace, name, target }),
    await checkDns(host, installation.proxyService, resolve),
  ];
}

async function registryFindings(
  options: DiagnoseConnectorOptions,
  connector: Connector,
  document: unknown,
): Promise<readonly Finding[]> {
  const { cluster, installNamespace, probe, resolve, signal } = options;
  const { namespace, secretName, caCertSecretName, clientCertSecretName } = connector;
  const secretsIn = (owner: string): string => `/api/v1/namespaces/${owner}/secrets`;
  const secret = async (name: string | undefined): Promise<ReferredSecret | undefined> =>
    name === undefined
      ? undefined
      : { namespace, name, observed: await cluster.get(`${secretsIn(namespace)}/${name}`) };
  const [login, ca, certificate] = await Promise.all([
    secret(secretName),
    secret(caCertSecretName),
    secret(clientCertSecretName),
  ]);
  const shared = await cluster.list(secretsIn(installNamespace), { labelSelector: sharedCaLabel });
  const own = ca?.observed.state === "found" ? [ca.observed.value] : [];
  const authorities = [...own, ...(shared.state === "found" ? shared.value : [])];
  return [
    connector.identity === undefined
      ? checkLogin(login, connector.address)
      : checkIdentity(connector, connector.identity, statusConditions(document)),
    checkCaSecret(ca),
    ...checkClientCertificate(certificate),
    ...(await checkRegistry({
      connector,
      probe,
      signal,
      credential: connector.identity === undefined ? credentialOf(login, connector) : "unread",
      caCertificates: authorities.flatMap(parseCertificates),
      clientCertificate: clientCertificateOf(certificate),
      conditions: statusConditions(document),
      // Without the login of the proxies at a company's proxy, what is found is not what they find.
      isInCluster: resolve !== undefined && options.installation.egressLogin !== "unread",
    })),
  ];
}

function clientCertificateOf(
  secret: ReferredSecret | undefined,
): UpstreamSecrets["clientCertificate"] {
  if (secret?.observed.state !== "found") return undefined;
  const parsed = parseClientCertificate(secret.observed.value);
  return parsed.ok ? parsed.value : undefined;
}

function credentialOf(
  login: ReferredSecret | undefined,
  { address }: Connector,
): UpstreamSecrets["credential"] | "unread" {
  if (login === undefined) return undefined;
  const parsed =
    login.observed.state === "found" ? parseCredential(login.observed.value, address) : undefined;
  return parsed?.ok ? parsed.value : "unread";
}
