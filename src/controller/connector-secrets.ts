import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import {
  type ClientCertificate,
  parseCertificates,
  parseClientCertificate,
  parseCredential,
} from "../connector/credential.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { bad, type ConditionState, good } from "./conditions.ts";
import { type IdentityLogins, loginState } from "./identity-login.ts";

/** What is needed to read the Secrets of Connectors. */
export interface ConnectorSecretsOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Returns the Secrets whose certificates every connector trusts. */
  readonly sharedCas: () => readonly KubeObject[];
  /** Returns the command that lets the controller read the Secrets of a namespace. */
  readonly permissionCommand: (namespace: string) => string;
  readonly identityLogins: IdentityLogins;
}

/** What the Secrets of a connector contain, and the states of the conditions about them. */
export interface ConnectorSecrets {
  /** The state of SecretReady. It is Unknown where an identity may be used that has not given a login yet. */
  readonly secretState: ConditionState;
  /** The state of CACertReady. */
  readonly caCertState: ConditionState;
  /** The credential and the certificates; undefined where SecretReady is False. */
  readonly upstream: UpstreamSecrets | undefined;
  /** Whether the controller may not read one of the Secrets: then it can't let the proxy read it either. */
  readonly isForbidden: boolean;
  /** Whether the connector names no Secret. */
  readonly isAnonymous: boolean;
  /** Differs after each change of the Secrets with the credential and with the client certificate; their content can't be derived from it. */
  readonly loginVersion: string;
  /** Differs after each change of any of the Secrets. */
  readonly version: string;
}

/**
 * Reads the Secrets of a connector.
 * @throws what `ApiClient.request` throws, but for refusals that a condition shows
 */
export type ReadConnectorSecrets = (connector: Connector) => Promise<ConnectorSecrets>;

/** Creates the function that reads the Secrets of a connector. */
export function createConnectorSecretsReader(
  options: ConnectorSecretsOptions,
): ReadConnectorSecrets {
  const { sharedCas } = options;
  return async (connector) => {
    const { namespace, secretName, caCertSecretName, clientCertSecretName } = connector;
    const read = (name: string | undefined): Promise<SecretState> =>
      readSecret(options, namespace, name);
    const [login, ca, certificate] = await Promise.all([
      read(secretName),
      read(caCertSecretName),
      read(clientCertSecretName),
    ]);
    const shared = sharedCas();
    const caCertificates = [ca, ...shared.map(foundSecret)].flatMap(certificatesIn);
    const { state: ofSecret, credential } = secretState(login, connector);
    const { refusal, clientCertificate } = clientCertificateState(certificate);
    const upstream = {
      credential,
      caCertificates,
      ...(clientCertificate === undefined ? {} : { clientCertificate }),
    };
    const identity = await identityState(options, connector, upstream);
    const ofLogin = identity?.state ?? ofSecret;
    const state = ofLogin.status === "False" ? ofLogin : (refusal ?? ofLogin);
    const own = [login, ca, certificate];
    const loginVersions = [
      login.version,
      ...(certificate.state === "none" ? [] : [certificate.version]),
      ...(identity === undefined ? [] : [identity.version]),
    ];
    const versions = [ca, ...shared.map(foundSecret)].map(({ version }) => version);
    return {
      secretState: state,
      caCertState: caCertState(ca, shared.length),
      upstream: state.status === "False" ? undefined : upstream,
      isForbidden: own.some((read) => read.state === "forbidden"),
      isAnonymous: own.every((read) => read.state === "none"),
      loginVersion: loginVersions.join(" "),
      version: [...loginVersions, ...versions].join(" "),
    };
  };
}

/** What SecretReady says of an identity, without the login that it may have given; undefined for a connector without one. */
async function identityState(
  { identityLogins }: ConnectorSecretsOptions,
  connector: Connector,
  upstream: UpstreamSecrets,
): Promise<{ readonly state: ConditionState; readonly version: string } | undefined> {
  if (connector.identity === undefined) return undefined;
  const checked = await identityLogins.check(connector, upstream);
  return checked.ok
    ? { state: loginState(undefined), version: checked.version }
    : { state: bad(checked.reason, checked.message), version: "refused" };
}

/** What came of reading a Secret. Its `version` differs after each change. */
type SecretState =
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

const foundSecret = (object: KubeObject): Extract<SecretState, { state: "found" }> => {
  const { namespace = "", name, uid, resourceVersion } = object.metadata;
  const ref = showRef({ namespace, name });
  return { state: "found", version: `${uid}/${resourceVersion}`, ref, object };
};

async function readSecret(
  { client, permissionCommand }: ConnectorSecretsOptions,
  namespace: string,
  name: string | undefined,
): Promise<SecretState> {
  if (name === undefined) return { state: "none", version: "none" };
  const ref = showRef({ namespace, name });
  try {
    const path = `/api/v1/namespaces/${namespace}/secrets/${name}`;
    return foundSecret((await client.request({ path })) as KubeObject);
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

function secretState(
  login: SecretState,
  { address }: Connector,
): {
  readonly state: ConditionState;
  readonly credential: UpstreamSecrets["credential"];
} {
  if (login.state === "none") {
    const message = "no auth.secretRef: the registry is used anonymously";
    return { state: good("SecretOptional", message), credential: undefined };
  }
  if (login.state !== "found") {
    const advice = ", with username and password, or remove auth.secretRef";
    const state = unreadableSecret(login, login.state === "missing" ? advice : "");
    return { state, credential: undefined };
  }
  const parsed = parseCredential(login.object, address);
  if (parsed.ok) {
    const what = parsed.value.kind === undefined ? "a user and a password" : "an identity token";
    const message = `Secret ${login.ref} has ${what}`;
    return { state: good("SecretFound", message), credential: parsed.value };
  }
  const message = `Secret ${login.ref}: ${describeProblems(parsed.problems)}`;
  return { state: bad("SecretInvalid", message), credential: undefined };
}

/** What is wrong with the Secret of the client certificate, which SecretReady shows; nothing where there is none. */
function clientCertificateState(certificate: SecretState): {
  readonly refusal: ConditionState | undefined;
  readonly clientCertificate: ClientCertificate | undefined;
} {
  if (certificate.state === "none") return { refusal: undefined, clientCertificate: undefined };
  if (certificate.state !== "found") {
    const advice = ", with tls.crt and tls.key, or remove clientCertSecret from spec.params";
    const refusal = unreadableSecret(certificate, certificate.state === "missing" ? advice : "");
    return { refusal, clientCertificate: undefined };
  }
  const parsed = parseClientCertificate(certificate.object);
  if (parsed.ok) return { refusal: undefined, clientCertificate: parsed.value };
  const message = `Secret ${certificate.ref}: ${describeProblems(parsed.problems)}`;
  return { refusal: bad("SecretInvalid", message), clientCertificate: undefined };
}

function caCertState(ca: SecretState, shared: number): ConditionState {
  const others = `the system's certificates and those of ${shared} Secrets for all connectors`;
  if (ca.state === "none") {
    return good("NoCACert", `no caCertSecretRef; the proxy trusts ${others}`);
  }
  if (ca.state !== "found") return unreadableSecret(ca, "");
  const { length } = certificatesIn(ca);
  if (length === 0) {
    return bad("InvalidPEM", `Secret ${ca.ref}: found no certificate, wanted one or more in PEM`);
  }
  return good(
    "Valid",
    `the proxy trusts ${length} certificates of Secret ${ca.ref}, ${others}; ` +
      "the certificate of an issuing authority alone suffices",
  );
}

const unreadableSecret = (
  { state, message }: Extract<SecretState, { state: "missing" | "forbidden" }>,
  advice: string,
): ConditionState =>
  bad(state === "missing" ? "SecretNotFound" : "SecretForbidden", message + advice);

const certificatesIn = (read: SecretState): readonly string[] =>
  read.state === "found" ? parseCertificates(read.object) : [];
