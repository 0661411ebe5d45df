import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { parseCertificates, parseCredential } from "../connector/credential.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { bad, type ConditionState, good } from "./conditions.ts";

export interface ConnectorSecretsOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The Secrets whose certificates every connector trusts. */
  readonly sharedCas: () => readonly KubeObject[];
  /** How to let the controller read the Secrets of a namespace. */
  readonly permissionCommand: (namespace: string) => string;
}

/** What the Secrets of a connector say, and which ones they are. */
export interface ConnectorSecrets {
  readonly secret: ConditionState;
  readonly caCert: ConditionState;
  /** Undefined where there is no credential to log in with. */
  readonly upstream: UpstreamSecrets | undefined;
  /** Whether we may not read one of them: then we can't let the proxy read it, either. */
  readonly forbidden: boolean;
  /** Whether the connector names no Secret at all. */
  readonly isAnonymous: boolean;
  /** Differs after any change of the Secret with the credential, and says nothing of what is in it. */
  readonly loginVersion: string;
  /** Differs after any change of any of them. */
  readonly version: string;
}

/** Reads the Secrets of a connector. @throws as ApiClient.request, where it is none of the refusals that a condition shows */
export type ReadConnectorSecrets = (connector: Connector) => Promise<ConnectorSecrets>;

export function connectorSecrets(options: ConnectorSecretsOptions): ReadConnectorSecrets {
  const { sharedCas } = options;
  return async (connector) => {
    const { namespace, secretName, caCertSecretName } = connector;
    const read = (name: string | undefined): Promise<Read> => readSecret(options, namespace, name);
    const [login, ca] = await Promise.all([read(secretName), read(caCertSecretName)]);
    const shared = sharedCas();
    const caCertificates = [ca, ...shared.map(found)].flatMap(certificatesIn);
    const { finding, credential } = credentialIn(login);
    const upstream = { credential, caCertificates };
    const versions = [login, ca, ...shared.map(found)].map(({ version }) => version);
    return {
      secret: finding,
      caCert: caCertFinding(ca, shared.length),
      upstream: finding.status === "True" ? upstream : undefined,
      forbidden: [login, ca].some(({ state }) => state === "forbidden"),
      isAnonymous: login.state === "none" && ca.state === "none",
      loginVersion: login.version,
      version: versions.join(" "),
    };
  };
}

type Read =
  | { readonly state: "none"; readonly version: string }
  | {
      readonly state: "found";
      readonly version: string;
      readonly ref: string;
      readonly object: KubeObject;
    }
  | {
      readonly state: "missing" | "forbidden";
      readonly version: string;
      readonly ref: string;
      readonly message: string;
    };

const found = (object: KubeObject): Extract<Read, { state: "found" }> => {
  const { namespace = "", name, uid, resourceVersion } = object.metadata;
  const ref = showRef({ namespace, name });
  return { state: "found", version: `${uid}/${resourceVersion}`, ref, object };
};

async function readSecret(
  { client, permissionCommand }: ConnectorSecretsOptions,
  namespace: string,
  name: string | undefined,
): Promise<Read> {
  if (name === undefined) return { state: "none", version: "none" };
  const ref = showRef({ namespace, name });
  try {
    const path = `/api/v1/namespaces/${namespace}/secrets/${name}`;
    return found((await client.request({ path })) as KubeObject);
  } catch (error) {
    if (hasStatus(error, 404)) {
      const message = `there is no Secret ${ref}: create it`;
      return { state: "missing", version: "missing", ref, message };
    }
    if (!hasStatus(error, 403)) throw error;
    const message =
      `the controller may not read Secret ${ref}: ` +
      `let it read the Secrets of this namespace by \`${permissionCommand(namespace)}\``;
    return { state: "forbidden", version: "forbidden", ref, message };
  }
}

function credentialIn(login: Read): {
  readonly finding: ConditionState;
  readonly credential: UpstreamSecrets["credential"];
} {
  if (login.state === "none") {
    const message = "no auth.secretRef: the registry is used anonymously";
    return { finding: good("SecretOptional", message), credential: undefined };
  }
  if (login.state !== "found") {
    const advice = ", with username and password, or remove auth.secretRef";
    const finding = refusal(login, login.state === "missing" ? advice : "");
    return { finding, credential: undefined };
  }
  const parsed = parseCredential(login.object);
  if (parsed.ok) {
    const message = `Secret ${login.ref} has a user and a password`;
    return { finding: good("SecretFound", message), credential: parsed.value };
  }
  const message = `Secret ${login.ref}: ${describeProblems(parsed.problems)}`;
  return { finding: bad("SecretInvalid", message), credential: undefined };
}

function caCertFinding(ca: Read, shared: number): ConditionState {
  const others = `the system's certificates and those of ${shared} Secrets for all connectors`;
  if (ca.state === "none") {
    return good("CACertOptional", `no caCertSecretRef; the proxy trusts ${others}`);
  }
  if (ca.state !== "found") return refusal(ca, "");
  const { length } = certificatesIn(ca);
  if (length === 0) {
    return bad(
      "SecretInvalid",
      `Secret ${ca.ref}: found no certificate, wanted one or more in PEM`,
    );
  }
  return good(
    "CACertFound",
    `the proxy trusts ${length} certificates of Secret ${ca.ref}, ${others}`,
  );
}

const refusal = (
  { state, message }: Extract<Read, { state: "missing" | "forbidden" }>,
  advice: string,
): ConditionState =>
  bad(state === "missing" ? "SecretNotFound" : "SecretForbidden", message + advice);

const certificatesIn = (read: Read): readonly string[] =>
  read.state === "found" ? parseCertificates(read.object) : [];
