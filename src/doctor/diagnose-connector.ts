import type { Connector } from "../connector/connector.ts";
import { connectorApiVersion, parseConnector } from "../connector/connector.ts";
import type { ConnectorRef } from "../connector/connector-ref.ts";
import { parseCertificates, parseCredential } from "../connector/credential.ts";
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
  conditionsOf,
  type Resolve,
} from "./check-connector.ts";
import { checkRegistry } from "./check-registry.ts";
import { checkCaSecret, checkLogin, type ReferredSecret } from "./check-secrets.ts";
import type { ClusterView } from "./cluster-reader.ts";
import type { Installation } from "./diagnose-installation.ts";
import { type Finding, notChecked } from "./report.ts";

export interface ConnectorOptions {
  readonly view: ClusterView;
  readonly ref: ConnectorRef;
  /** Whose rights to look at. */
  readonly account: ServiceAccountRef | undefined;
  readonly mayUse: MayUse;
  readonly installNamespace: string;
  readonly proxyServiceName: string;
  readonly installation: Pick<Installation, "settings" | "proxyService">;
  readonly probe: Probe;
  /** Undefined outside of the cluster. */
  readonly resolve: Resolve | undefined;
  readonly signal: AbortSignal;
}

/** Looks at one connector and at everything that it needs. */
export async function examineConnector(options: ConnectorOptions): Promise<readonly Finding[]> {
  const { view, ref } = options;
  const { namespace, name } = ref;
  const object = await view.get(
    `/apis/${connectorApiVersion}/namespaces/${namespace}/connectors/${name}`,
  );
  const document = object.state === "found" ? object.value : undefined;
  const parsed = parseConnector(document);
  const read = parsed.ok ? { connector: parsed.value } : { problems: parsed.problems };
  const found = checkConnector(object, read, ref);
  const access = await accessFindings(options, read.connector);
  if (document === undefined) return [found, ...access];
  const conditions = checkConditions(document);
  if (read.connector === undefined) return [found, ...conditions, ...access];
  return [
    found,
    ...conditions,
    ...(await addressFindings(options)),
    ...(await registryFindings(options, read.connector, document)),
    ...access,
  ];
}

async function accessFindings(
  { view, ref, account, mayUse }: ConnectorOptions,
  connector: Connector | undefined,
): Promise<readonly Finding[]> {
  if (account === undefined) {
    return [
      notChecked(
        "rights",
        "no ServiceAccount was named",
        "name one with --service-account NAMESPACE/NAME",
      ),
    ];
  }
  const seen = await view.get(
    `/api/v1/namespaces/${account.namespace}/serviceaccounts/${account.name}`,
  );
  return checkAccess({ account, ref, connector, mayUse, seen });
}

async function addressFindings(options: ConnectorOptions): Promise<readonly Finding[]> {
  const { view, ref, installation, resolve } = options;
  const { clusterDomain } = installation.settings;
  const target = `${options.proxyServiceName}.${options.installNamespace}.svc.${clusterDomain}`;
  const host = serviceHosts(clusterDomain)(ref).http ?? "";
  const [name = ""] = host.split(".", 1);
  const { namespace } = ref;
  const service = await view.get(`/api/v1/namespaces/${namespace}/services/${name}`);
  return [
    checkConnectorService(service, { namespace, name, target }),
    await checkDns(host, installation.proxyService, resolve),
  ];
}

async function registryFindings(
  options: ConnectorOptions,
  connector: Connector,
  document: unknown,
): Promise<readonly Finding[]> {
  const { view, installNamespace, probe, resolve, signal } = options;
  const { namespace, secretName, caCertSecretName } = connector;
  const secretsIn = (owner: string): string => `/api/v1/namespaces/${owner}/secrets`;
  const secret = async (name: string | undefined): Promise<ReferredSecret | undefined> =>
    name === undefined
      ? undefined
      : { namespace, name, seen: await view.get(`${secretsIn(namespace)}/${name}`) };
  const [login, ca] = await Promise.all([secret(secretName), secret(caCertSecretName)]);
  const shared = await view.list(secretsIn(installNamespace), { labelSelector: sharedCaLabel });
  const own = ca?.seen.state === "found" ? [ca.seen.value] : [];
  const authorities = [...own, ...(shared.state === "found" ? shared.value : [])];
  return [
    checkLogin(login),
    checkCaSecret(ca),
    ...(await checkRegistry({
      ...{ connector, probe, signal, credential: credentialOf(login) },
      caCertificates: authorities.flatMap(parseCertificates),
      conditions: conditionsOf(document),
      isInCluster: resolve !== undefined,
    })),
  ];
}

function credentialOf(login: ReferredSecret | undefined): UpstreamSecrets["credential"] | "unread" {
  if (login === undefined) return undefined;
  const parsed = login.seen.state === "found" ? parseCredential(login.seen.value) : undefined;
  return parsed?.ok ? parsed.value : "unread";
}
