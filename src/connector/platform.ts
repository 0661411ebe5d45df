/**
 * What a role asks of the world it runs in. Each question is one function, so that a role knows
 * neither Kubernetes nor a folder of YAML, and a test answers it in a line.
 */
import type { Connector } from "./connector.ts";
import type { ConnectorRef } from "./connector-ref.ts";
import type { Credential } from "./credential.ts";

/** An answer that may be a refusal: expected, with a sentence that a person can act on. */
export type Result<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string };

/** The question could not be answered now, and may be answered later: the API server is away. */
export class Unavailable extends Error {
  override readonly name = "Unavailable";
}

/**
 * The connector of that name.
 * A refusal says that there is none, or what is wrong with its document.
 * @throws Unavailable
 */
export type FindConnector = (ref: ConnectorRef) => Promise<FoundConnector>;

export type FoundConnector =
  | { readonly state: "found"; readonly connector: Connector }
  | { readonly state: "missing" | "invalid"; readonly reason: string };

/** What a connector's Secrets say. */
export interface UpstreamSecrets {
  /** Undefined for an anonymous connector. */
  readonly credential: Credential | undefined;
  /** PEM certificates to trust beside the system's. */
  readonly caCertificates: readonly string[];
}

/**
 * Reads the Secrets of a connector. `fresh` asks past any cache, after the registry has refused what was given before.
 * @throws Unavailable
 */
export type ReadUpstreamSecrets = (
  connector: Connector,
  options?: { readonly fresh: boolean },
) => Promise<Result<UpstreamSecrets>>;

/** Who holds a token. */
export interface Identity {
  /** `system:serviceaccount:team-a:builder`, or `volume:<id>` without Kubernetes. */
  readonly user: string;
  readonly groups: readonly string[];
  /**
   * What outlives a renewed token and dies with its holder: the Pod, or the volume. An upload that
   * was begun with one token may be finished with the next one of the same subject.
   */
  readonly subject: string;
  /** The connectors that this token opens, as `namespace/name`; undefined where access reviews decide. */
  readonly connectors?: readonly string[];
  /** The Pod that the token is bound to. */
  readonly pod?: { readonly namespace: string; readonly name: string };
  /** Whether the token has expired, and is taken all the same. */
  readonly isExpired?: boolean;
}

/**
 * Who holds this token? A refusal says why it is none of ours.
 * @throws Unavailable
 */
export type VerifyToken = (token: string) => Promise<Result<Identity>>;

/** What somebody wants to do with a connector. */
export type Verb = "pull" | "push";

export type Requester = Pick<Identity, "user" | "groups" | "connectors">;

/**
 * May they? A refusal names the right that is missing.
 * @throws Unavailable
 */
export type MayUse = (who: Requester, connector: ConnectorRef, verb: Verb) => Promise<Result<void>>;

/** As whom a Pod acts. */
export interface ServiceAccountRef {
  readonly namespace: string;
  readonly name: string;
}

/** The user and the groups that the API server gives a ServiceAccount's token. */
export const serviceAccountRequester = ({ namespace, name }: ServiceAccountRef): Requester => ({
  user: `system:serviceaccount:${namespace}:${name}`,
  groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
});
