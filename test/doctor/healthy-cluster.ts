import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { createAuthority } from "../../src/certificate-authority.ts";
import { proxyKeysData, trustedBundle } from "../../src/connector/proxy-keys.ts";
import {
  type FakeApiServer,
  type FakeObject,
  type FakeRequest,
  statusOf,
} from "../kube/fake-api-server.ts";

export const system = "connectors-system";
export const team = "team-a";
export const login = { username: "alice", password: "secret-of-alice" };

const manifest = async (file: string, kind: string): Promise<FakeObject> => {
  const text = await readFile(join(import.meta.dirname, "../../daemonset", file), "utf8");
  const documents = parseAllDocuments(text).map((document) => document.toJS() as FakeObject);
  const found = documents.find((document) => document.kind === kind);
  if (found === undefined) throw new Error(`there is no ${kind} in ${file}`);
  return found;
};

const inSystem = (object: FakeObject, more: object = {}): FakeObject => ({
  ...object,
  ...more,
  metadata: { ...object.metadata, namespace: system },
});

const base64 = (data: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]),
  );

const conditionTypes = [
  "ConnectorClassReady",
  "SecretReady",
  "LivenessReady",
  "AuthReady",
  "ProxyServiceReady",
  "CACertReady",
  "Ready",
];

/** A Connector's document whose every condition is True, but for those that are given. */
export function connectorWith(
  spec: object,
  others: Readonly<Record<string, readonly [status: string, reason: string]>> = {},
): FakeObject {
  const conditions = conditionTypes.map((type) => {
    const [status, reason] = others[type] ?? ["True", "Good"];
    return { type, status, reason, message: `${reason}!` };
  });
  return {
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name: "harbor", namespace: team },
    spec: {
      connectorClassName: "oci",
      auth: { name: "tokenAuth", secretRef: { name: "login" } },
      ...spec,
    },
    status: { observedGeneration: 1, conditions },
  };
}

/** Puts all that the manifests install, as it is where all is well, and one connector. */
export async function putHealthyCluster(server: FakeApiServer, address: string): Promise<void> {
  const established = { conditions: [{ type: "Established", status: "True" }] };
  const crd = await manifest("crd.yaml", "CustomResourceDefinition");
  server.put("customresourcedefinitions", { ...crd, status: established });
  server.put("csidrivers", await manifest("csidriver.yaml", "CSIDriver"));
  const pods = { desiredNumberScheduled: 2, numberReady: 2, updatedNumberScheduled: 2 };
  const daemonSet = await manifest("daemonset.yaml", "DaemonSet");
  server.put("daemonsets", inSystem(daemonSet, { status: pods }));
  const deployment = await manifest("controller.yaml", "Deployment");
  server.put("deployments", inSystem(deployment, { status: { availableReplicas: 2 } }));
  await putSettings(server);
  await putKeys(server);
  putService(server, await manifest("service.yaml", "Service"));
  for (const name of ["node1", "node2"]) {
    const conditions = [{ type: "Ready", status: "True" }];
    server.put("nodes", { metadata: { name }, status: { conditions } });
    server.put("csinodes", { metadata: { name }, spec: { drivers: [{ name: "connectors-csi" }] } });
  }
  server.put("connectors", connectorWith({ address }));
  server.put("secrets", {
    metadata: { name: "login", namespace: team },
    type: "kubernetes.io/basic-auth",
    data: base64(login),
  });
  server.put("services", {
    metadata: { name: "c-harbor", namespace: team },
    spec: { type: "ExternalName", externalName: `connectors-proxy.${system}.svc.cluster.local` },
  });
  server.put("serviceaccounts", { metadata: { name: "builder", namespace: team } });
}

async function putSettings(server: FakeApiServer): Promise<void> {
  const file = join(import.meta.dirname, "../../daemonset/settings.env");
  const lines = (await readFile(file, "utf8")).matchAll(/^([A-Z_]+)=(.*)$/gm);
  const data = Object.fromEntries([...lines].map(([, key, value]) => [key, value]));
  server.put("configmaps", { metadata: { name: "connectors-settings", namespace: system }, data });
}

async function putKeys(server: FakeApiServer): Promise<void> {
  const authority = await createAuthority("test", new Date());
  const keys = { authority, sealKey: randomBytes(32), next: undefined, previous: undefined };
  const data = { "ca.crt": trustedBundle(keys) };
  server.put("configmaps", { metadata: { name: "connectors-proxy-ca", namespace: system }, data });
  const metadata = { name: "connectors-proxy-keys", namespace: system };
  server.put("secrets", { metadata, data: JSON.parse(JSON.stringify(proxyKeysData(keys))) });
}

function putService(server: FakeApiServer, service: FakeObject): void {
  const spec = { ...(service.spec as object), clusterIPs: ["10.96.0.50"] };
  server.put("services", inSystem(service, { spec }));
  const labels = { "kubernetes.io/service-name": "connectors-proxy" };
  const metadata = { name: "connectors-proxy-abc", namespace: system, labels };
  const endpoints = [{ conditions: { ready: true } }, { conditions: { ready: false } }];
  server.put("endpointslices", { metadata, endpoints } as FakeObject);
}

/** What the fake does not serve by itself: its version, what it knows of, and reviews. */
export interface Served {
  version: string;
  /** Whether it serves Connectors. */
  knows: boolean;
  /** Which rights everybody has. */
  allows: readonly string[];
  /** What nobody may look at. */
  forbidden: RegExp | undefined;
}

export const serveAs =
  (served: Served): FakeApiServer["intercept"] =>
  ({ path, method, body }) => {
    const { version, knows, forbidden } = served;
    if (forbidden?.test(path)) return { status: 403, body: statusOf(403, `${path} is forbidden`) };
    if (path === "/version") return { status: 200, body: { gitVersion: version } };
    if (path === "/apis/connectors.alauda.io/v1alpha1") {
      return knows ? { status: 200, body: { resources: [] } } : { status: 404 };
    }
    return method === "POST" ? { status: 201, body: review(body, served) } : undefined;
  };

function review(body: FakeRequest["body"], { allows }: Served): object {
  const { spec } = body as {
    spec: { resourceAttributes: { verb: string; resource: string; subresource?: string } };
  };
  const { verb, resource, subresource } = spec.resourceAttributes;
  const right = `${verb} ${resource}${subresource === undefined ? "" : `/${subresource}`}`;
  return { status: { allowed: allows.includes(right) } };
}
