import type { Connector } from "../../src/connector/connector.ts";
import { parseConnector } from "../../src/connector/connector.ts";
import type { IdentityLogins } from "../../src/controller/identity-login.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";

/** A Connector's document, as the API server gives it. */
export const connectorObject = (spec: object = {}, status?: object): KubeObject => {
  const metadata = { name: "harbor", namespace: "team-a", uid: "uid-1", resourceVersion: "7" };
  const object = {
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { ...metadata, generation: 1 },
    spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
    ...(status === undefined ? {} : { status }),
  };
  return object;
};

export function connectorOf(object: KubeObject): Connector {
  const connector = parseConnector(object);
  if (!connector.ok) throw new Error(`the sample is wrong at ${connector.problems[0]?.path}`);
  return connector.value;
}

/** For controllers whose connectors have no identity. */
export const noIdentities: IdentityLogins = {
  check: async () => ({ ok: false, reason: "TokenForbidden", message: "there is none" }),
  current: () => undefined,
  obtain: async () => ({ ok: false, reason: "TokenForbidden", message: "there is none" }),
};
