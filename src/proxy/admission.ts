import type { IncomingMessage } from "node:http";
import { type Action, isAllowed, matches } from "../connector/access-rules.ts";
import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type {
  FindConnector,
  Identity,
  MayUse,
  Verb,
  VerifyToken,
} from "../connector/surroundings.ts";
import { denied, RegistryError } from "./registry-error.ts";
import { challengeOfOurs, clientToken } from "./request/client-token.ts";
import type { Endpoint, RepositoryTarget } from "./request/request-target.ts";

export interface AdmissionOptions {
  readonly verifyToken: VerifyToken;
  readonly mayUse: MayUse;
  readonly findConnector: FindConnector;
  /** The connector whose own host this is; undefined where hosts say nothing. */
  readonly connectorOfHost: (host: string) => ConnectorRef | undefined;
}

/**
 * Who asks?
 * @throws RegistryError 401 with the one challenge; Unavailable
 */
export async function authenticate(
  request: IncomingMessage,
  { verifyToken }: AdmissionOptions,
): Promise<Identity> {
  const token = clientToken(request.headers.authorization);
  if (token === undefined) {
    throw unauthorized("this proxy requires the token of a connectors volume", tokenHint);
  }
  const answer = await verifyToken(token);
  if (!answer.ok) throw unauthorized(answer.reason, tokenHint);
  return answer.value;
}

const tokenHint =
  "use the volume's config.json (DOCKER_CONFIG, --authfile), or its context.token as the password of any user";

/**
 * Which connector is meant? The path decides, then the host.
 * @throws RegistryError 404
 */
export function connectorOf(
  target: RepositoryTarget,
  host: string | undefined,
  { connectorOfHost }: AdmissionOptions,
): ConnectorRef {
  const ref = target.connector ?? connectorOfHost(host ?? "");
  if (ref !== undefined) return ref;
  const message = "neither the path nor the host names a connector";
  throw new RegistryError(404, "NAME_UNKNOWN", message, {
    detail:
      "image names start with <proxy host>/namespaces/<namespace>/connectors/<connector>/; the volume's connector.status.proxyAddress has it",
  });
}

/**
 * The connector, once its use is allowed: that is asked before anything is said about it.
 * @throws RegistryError 403, 404; Unavailable
 */
export async function authorize(
  ref: ConnectorRef,
  verb: Verb,
  identity: Identity,
  { mayUse, findConnector }: AdmissionOptions,
): Promise<Connector> {
  const allowed = await mayUse(identity, ref, verb);
  if (!allowed.ok) throw denied(allowed.reason);
  const answer = await findConnector(ref);
  if (answer.state === "found") return answer.connector;
  if (answer.state === "missing") {
    throw new RegistryError(404, "NAME_UNKNOWN", answer.reason, {
      detail: `create the connector ${showRef(ref)}, or correct the name`,
    });
  }
  throw denied(`the connector ${showRef(ref)} can't be used: ${answer.reason}`);
}

const unauthorized = (message: string, detail: string): RegistryError =>
  new RegistryError(401, "UNAUTHORIZED", message, {
    detail,
    headers: { "www-authenticate": challengeOfOurs },
  });

/** What a request does. The end of an upload that was not finished is part of pushing. */
export function actionOf(method: string, { kind }: Endpoint): Action {
  if (method === "GET" || method === "HEAD") return kind === "upload" ? "push" : "pull";
  return method === "DELETE" && kind !== "upload" ? "delete" : "push";
}

/** Whether the connector's rules allow it. A catalog names every repository, so it takes a rule for all of them. */
export const mayAct = (
  { rules }: Connector,
  action: Action,
  repository: string,
  { user }: Identity,
): boolean => isAllowed(rules, { action, repository, user });

/** @throws RegistryError 403 where the connector's rules don't allow it */
export function checkRules(
  connector: Connector,
  action: Action,
  repository: string,
  identity: Identity,
): void {
  if (mayAct(connector, action, repository, identity)) return;
  const what = repository === "" ? "list the repositories" : `${action} ${repository}`;
  throw denied(
    `the rules of the connector ${showRef(connector)} don't let ${identity.user} ${what}`,
    {
      detail: "they stand in the connector's spec.params, under rules",
    },
  );
}

/** Whether a reference is a tag that is made once and never changed. */
export const isImmutableTag = ({ immutableTags = [] }: Connector, reference: string): boolean =>
  !reference.includes(":") && immutableTags.some((pattern) => matches(pattern, reference));
