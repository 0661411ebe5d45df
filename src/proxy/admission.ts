/** Who sends a request, which connector does it mean, and may they do that with it? */
import type { IncomingMessage } from "node:http";
import { type Action, maxPatternBytes, maxPatterns } from "../connector/access-rules.ts";
import { isAllowed, matchesTag, type SpendWork } from "../connector/access-verdict.ts";
import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type {
  FindConnector,
  Identity,
  MayUse,
  TokenSender,
  Verb,
  VerifyToken,
} from "../connector/platform.ts";
import { denied, RegistryError } from "./registry-error.ts";
import { basicChallenge, clientLogin } from "./request/request-head.ts";
import type { Endpoint, RepositoryTarget } from "./request/request-target.ts";

export interface AdmissionOptions {
  readonly verifyToken: VerifyToken;
  readonly mayUse: MayUse;
  readonly findConnector: FindConnector;
  /** The connector that has a host of its own, by that host; undefined for any other host. */
  readonly connectorOfHost: (host: string) => ConnectorRef | undefined;
}

/**
 * Verifies the token of a client.
 * @returns whose it is
 * @throws RegistryError 401 with the one challenge, where there is no token or an invalid one; Unavailable
 */
export async function authenticate(
  request: IncomingMessage,
  { verifyToken }: AdmissionOptions,
): Promise<Identity> {
  const login = clientLogin(request.headers.authorization);
  if (login === undefined) {
    throw unauthorized("this proxy requires the token of a connectors volume", tokenHint);
  }
  const verified = await verifyToken(login.token, senderOf(request));
  if (!verified.ok) throw unauthorized(verified.reason, tokenHint);
  return verified.value;
}

/** Who has sent a request, as far as its connection tells. */
export const senderOf = ({ socket }: IncomingMessage): TokenSender => ({
  address: socket.remoteAddress ?? "",
  connection: String(socket.remotePort ?? ""),
});

const tokenHint =
  "use the volume's config.json (DOCKER_CONFIG, --authfile), or its context.token as the password of any user";

/**
 * The connector that a request means. The path decides, then the host.
 * @param host the Host header
 * @throws RegistryError 404 where neither names one
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
 * Finds a connector that an identity may use. The right is checked first, so that nobody else learns anything about it.
 * @throws RegistryError 403 where they may not, or it can't be used; 404 where there is none; Unavailable
 */
export async function authorize(
  ref: ConnectorRef,
  verb: Verb,
  identity: Identity,
  { mayUse, findConnector }: AdmissionOptions,
): Promise<Connector> {
  const allowed = await mayUse(identity, ref, verb);
  if (!allowed.ok) throw denied(allowed.reason);
  const found = await findConnector(ref);
  if (found.state === "found") return found.connector;
  if (found.state === "missing") {
    throw new RegistryError(404, "NAME_UNKNOWN", found.reason, {
      detail: `create the connector ${showRef(ref)}, or correct the name`,
    });
  }
  throw denied(`the connector ${showRef(ref)} can't be used: ${found.reason}`);
}

/** 401 with the one challenge of this proxy: another login is needed. */
export const unauthorized = (message: string, detail: string): RegistryError =>
  new RegistryError(401, "UNAUTHORIZED", message, {
    detail,
    headers: { "www-authenticate": basicChallenge },
  });

/** What a request does, as rules name it. The end of an upload that was not finished is part of pushing. */
export function actionOf(method: string, { kind }: Endpoint): Action {
  if (method === "GET" || method === "HEAD") return kind === "upload" ? "push" : "pull";
  return method === "DELETE" && kind !== "upload" ? "delete" : "push";
}

/**
 * Whether a connector's rules allow an action.
 * @param repository as clients call it; empty for the catalog, which names every repository and so takes a rule for all of them
 */
export const mayAct = (
  { rules }: Connector,
  action: Action,
  repository: string,
  { user }: Identity,
): boolean => isAllowed(rules, { action, repository, user }, budgetOf(rules));

/**
 * Refuses what a connector's rules don't allow.
 * @param repository as clients call it; empty for the catalog
 * @throws RegistryError 403; 429 where the rules are too many, and were asked too often
 */
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
      detail: "the rules are in the connector's spec.params, under rules",
    },
  );
}

/** Whether a reference is a tag that is created once and never changed, as the connector has it. */
export const isImmutableTag = ({ immutableTags }: Connector, reference: string): boolean =>
  immutableTags !== undefined &&
  !reference.includes(":") &&
  matchesTag(immutableTags, reference, budgetOf(immutableTags));

/** Of operations on patterns, some 20 ms of CPU time. */
const burstOperations = 10_000_000;
/** In a second, some 5 ms of CPU time. */
const operationsPerSecond = 2_000_000;

const budgets = new WeakMap<object, SpendWork>();

/** The budget of a connector whose patterns are more than it may have. They go on to work, though not at the cost of its neighbours. */
function budgetOf(patterns: object | undefined): SpendWork | undefined {
  if (patterns === undefined) return undefined;
  const known = budgets.get(patterns) ?? createWorkBudget(() => performance.now());
  budgets.set(patterns, known);
  return known;
}

/** @param now milliseconds of a clock that never goes back */
function createWorkBudget(now: () => number): SpendWork {
  let left = burstOperations;
  let at = now();
  return (operations) => {
    const before = at;
    at = now();
    left = Math.min(burstOperations, left + ((at - before) / 1000) * operationsPerSecond);
    if (left <= 0) {
      throw new RegistryError(
        429,
        "TOOMANYREQUESTS",
        "the patterns of this connector's rules or immutable tags are too many to be checked for more requests now",
        {
          detail: `write at most ${maxPatterns} patterns of ${maxPatternBytes} bytes together in its spec.params`,
          headers: { "retry-after": "2" },
        },
      );
    }
    left -= operations; // below zero: even the largest check is made once there is anything left
  };
}
