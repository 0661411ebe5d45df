/**
 * What a role requires of the platform that it runs on: function types that `kube/` implements by the Kubernetes API,
 * and `standalone/` by a folder of YAML. So a role knows neither, and a test implements each function in a line.
 */
import type { Connector } from "./connector.ts";
import type { ConnectorRef } from "./connector-ref.ts";
import type { ClientCertificate, Credential } from "./credential.ts";

/** A value, or an expected refusal with a sentence that a person can act on. */
export type Result<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string };

/** Thrown where the platform can't say now and may say later, such as while the API server is away. */
export class Unavailable extends Error {
  override readonly name = "Unavailable";
}

/**
 * Runs what one request does. The platform bounds how long the lookups of a request wait together, where it has an older
 * result.
 */
export type AroundRequest = <T>(run: () => T) => T;

/**
 * Looks up a connector.
 * @throws Unavailable where the platform can't say now
 */
export type FindConnector = (ref: ConnectorRef) => Promise<FoundConnector>;

/** The outcome of a look-up: the connector, or why there is none or what is wrong with its document. */
export type FoundConnector =
  | { readonly state: "found"; readonly connector: Connector }
  | { readonly state: "missing" | "invalid"; readonly reason: string };

/** A connector, and the base path of its address: empty, or `/artifactory/api/docker/x`. */
export interface ConnectorPlace {
  readonly ref: ConnectorRef;
  readonly basePath: string;
}

/**
 * Lists the connectors of a namespace whose own address is at an origin: `https://harbor.example.com:8443`.
 * @throws Unavailable where the platform can't say now
 */
export type ConnectorsAt = (namespace: string, origin: string) => readonly ConnectorPlace[];

/** The contents of a connector's Secrets. */
export interface UpstreamSecrets {
  /** Undefined for an anonymous connector. */
  readonly credential: Credential | undefined;
  /** PEM certificates to trust beside the system's. */
  readonly caCertificates: readonly string[];
  /** What the registry's TLS is shown; undefined for a connector without one. */
  readonly clientCertificate?: ClientCertificate | undefined;
}

/**
 * Reads the Secrets of a connector. `fresh` bypasses any cache, for use after the registry has refused a credential. A
 * refusal says which Secret is missing or invalid.
 * @throws Unavailable where the platform can't say now
 */
export type ReadUpstreamSecrets = (
  connector: Connector,
  options?: { readonly fresh: boolean },
) => Promise<Result<UpstreamSecrets>>;

/** The holder of a token. */
export interface Identity {
  /** The user's name: `system:serviceaccount:team-a:builder`, or `volume:<id>` without Kubernetes. */
  readonly user: string;
  readonly groups: readonly string[];
  /**
   * Identifies the Pod or the mounted volume behind all of its tokens. An upload that
   * was begun with one token may be finished with another one of the same subject.
   */
  readonly subject: string;
  /** The connectors that this token opens, as `namespace/name`; undefined where access reviews decide. */
  readonly connectors?: readonly string[];
  /** The Pod that the token is bound to. */
  readonly pod?: { readonly namespace: string; readonly name: string };
  /** Whether the token has expired and is accepted all the same. */
  readonly isExpired?: boolean;
}

/** Where a token came from, which is all that is known of its sender before it is verified. */
export interface TokenSender {
  /** The IP address of the client. Several clients may share it. */
  readonly address: string;
  /** Tells the connections from one address apart: the client's port. */
  readonly connection: string;
}

/**
 * Finds the holder of a token. A refusal says why the token is invalid.
 * @param sender who takes turns with others where tokens have to wait; all without one count as the same sender
 * @throws Unavailable where the platform can't say now
 */
export type VerifyToken = (token: string, sender?: TokenSender) => Promise<Result<Identity>>;

/** A use of a connector that needs a right. */
export type Verb = "pull" | "push";

/** Whoever wants to use a connector. */
export type Requester = Pick<Identity, "user" | "groups" | "connectors">;

/**
 * Decides whether a requester may use a connector. A refusal names the right that is missing.
 * @throws Unavailable where the platform can't say now
 */
export type MayUse = (who: Requester, connector: ConnectorRef, verb: Verb) => Promise<Result<void>>;

/** Who may use a connector without a Role: nobody, or the ServiceAccounts of its own namespace. */
export type DefaultPermission = "none" | "namespace";

/** A reference to the ServiceAccount of a Pod. */
export interface ServiceAccountRef {
  readonly namespace: string;
  readonly name: string;
}

/** What the API server says of a ServiceAccount whose tokens are wanted. */
export type FoundServiceAccount =
  | { readonly state: "usable"; readonly uid: string }
  | UnusableServiceAccount;

/** Why the tokens of a ServiceAccount can't be had. */
export interface UnusableServiceAccount {
  /** `forbidden` where no Role gives us both `get` and `create` of its token. */
  readonly state: "missing" | "forbidden";
  readonly reason: string;
}

/** A token of a ServiceAccount that is requested. */
export interface TokenDemand {
  readonly account: ServiceAccountRef;
  /** The UID that the ServiceAccount must still have. */
  readonly uid: string;
  readonly audience: string;
  readonly lifetimeSeconds: number;
}

/** A token of a ServiceAccount. */
export interface ServiceAccountToken {
  readonly state: "issued";
  readonly value: string;
  /** In milliseconds since 1970; undefined where the API server does not say. */
  readonly expiresAt: number | undefined;
}

/** Looks at ServiceAccounts, and requests their tokens. */
export interface ServiceAccountTokens {
  /**
   * Looks at a ServiceAccount, and whether we may request its tokens.
   * @throws Unavailable where the API server can't say now
   */
  find(account: ServiceAccountRef): Promise<FoundServiceAccount>;
  /**
   * Requests a token for one audience.
   * @throws Unavailable where the API server can't issue one now, or issues another one than was requested
   */
  request(demand: TokenDemand): Promise<ServiceAccountToken | UnusableServiceAccount>;
}

/** The user and the groups that the API server gives a ServiceAccount's token. */
export const serviceAccountRequester = ({ namespace, name }: ServiceAccountRef): Requester => ({
  user: `system:serviceaccount:${namespace}:${name}`,
  groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
});

/** The namespace of a ServiceAccount by the user that the API server gives it; undefined for any other user. */
export const serviceAccountNamespace = (user: string): string | undefined =>
  /^system:serviceaccount:([^:]+):[^:]+$/.exec(user)?.[1];
