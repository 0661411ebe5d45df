import type { ConnectorRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import {
  type DefaultPermission,
  type FindConnector,
  type MayUse,
  type Requester,
  type Result,
  serviceAccountNamespace,
  Unavailable,
  type Verb,
} from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import { refusedAsUnavailable } from "./api-error.ts";
import { createFairQueue } from "./fair-queue.ts";
import { createLookupCache, type OnLookup } from "./lookup-cache.ts";

/** What is needed to have access reviewed, and what the operator requires. */
export interface AccessReviewOptions {
  readonly client: Pick<ApiClient, "request" | "lastFailureAt">;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** Whether a push needs a right of its own: `update connectors/proxy`. */
  readonly separatePush: boolean;
  /** Whether the use of a Connector needs `get connectors/proxy`, beside the right to read it. */
  readonly requireProxyVerb: boolean;
  /** Who may use a connector without a Role. */
  readonly defaultPermission: DefaultPermission;
  /** For how many milliseconds a right that was granted is not reviewed again; a minute unless given. */
  readonly allowedMs?: number;
  /** Is called for each review with where its result came from. */
  readonly onLookup?: OnLookup;
  /** Is called for each question that is not asked, since too many others wait. */
  readonly onReject?: () => void;
  /**
   * Tells which connectors exist. For one that does not, the right to get any connector of its namespace is reviewed,
   * whatever its name, so that made-up names cost one review. Unless given, all names are reviewed.
   */
  readonly findConnector?: FindConnector;
}

const group = "connectors.alauda.io";

/** A right on one connector, as RBAC sees it. */
interface Right {
  readonly verb: "get" | "update";
  readonly resource: "connectors" | "connectors/proxy";
}

const negativeMs = 5_000;
/** While the API server is away, nobody can revoke a right either. */
const usableMs = 10 * 60_000;
/**
 * An API server that begins again denies rights until it has read the Roles. A right that was granted is not given up
 * within this time after a failed connection.
 */
const startMs = 30_000;
const maxEntries = 10_000;
/** Reviews that run at once. */
const concurrency = 4;

/**
 * Creates a function that has the API server review who may use a connector (SubjectAccessReview). Results are cached.
 * Its refusals end in the rules of the Role that is missing. Nothing is asked about those whom the default permission
 * allows.
 */
export function createAccessReviewer(options: AccessReviewOptions): MayUse {
  const { client, now, allowedMs = 60_000, onLookup, onReject, findConnector } = options;
  const queue = createFairQueue({ what: "reviews of access", concurrency, onReject });
  /** An entry says who has asked: it is theirs. */
  const results = createLookupCache<Reviewed>({
    maxEntries,
    now,
    onLookup,
    ownerOf: ({ group }) => group,
  });

  async function isAllowed(who: Requester, where: ReviewedRef, right: Right): Promise<boolean> {
    const { user } = who;
    const asker = { group: serviceAccountNamespace(user) ?? user, member: user };
    const { allowed } = await results.get(keyOf(who, where, right), async (known) => {
      const allowed = await queue.run(asker, () => review(client, who, where, right));
      const hasJustBegun = performance.now() - client.lastFailureAt() < startMs;
      if (!allowed && known?.allowed === true && hasJustBegun) {
        throw new Unavailable("the API server has just begun and may not know every right yet");
      }
      const value = { allowed, group: asker.group };
      return allowed
        ? { value, freshMs: allowedMs, usableMs }
        : { value, freshMs: negativeMs, isRefusal: true };
    });
    return allowed;
  }

  /** Whether a right on a connector by its name was granted, not long ago. */
  const hadRight = (who: Requester, ref: ConnectorRef): boolean =>
    results.peek(keyOf(who, ref, readRight))?.allowed === true;

  return async (who, ref, verb) => {
    if (isAllowedByDefault(who, ref, options.defaultPermission)) {
      return { ok: true, value: undefined };
    }
    const found = await findConnector?.(ref);
    if (found?.state === "missing") {
      // Whoever could use it a moment ago may know that it is gone.
      const mayKnow =
        hadRight(who, ref) || (await isAllowed(who, { namespace: ref.namespace }, readRight));
      if (mayKnow) return { ok: true, value: undefined };
      return refuse(who, ref, requiredRights(verb, options));
    }
    const rights = requiredRights(verb, options);
    const allowed = await Promise.all(rights.map((right) => isAllowed(who, ref, right)));
    const missing = rights.filter((_, index) => !allowed[index]);
    return missing.length === 0 ? { ok: true, value: undefined } : refuse(who, ref, missing);
  };
}

/** Whether somebody may pull and push through a connector without a Role. */
export const isAllowedByDefault = (
  { user }: Pick<Requester, "user">,
  { namespace }: ConnectorRef,
  defaultPermission: DefaultPermission,
): boolean =>
  defaultPermission === "namespace" && user.startsWith(`system:serviceaccount:${namespace}:`);

/** What a review has found, and the asker's group. */
interface Reviewed {
  readonly allowed: boolean;
  readonly group: string;
}

/** The connectors that a review is about: one, or without a name all of the namespace. */
interface ReviewedRef {
  readonly namespace: string;
  readonly name?: string;
}

/** What a review depends on. */
const keyOf = (
  { user, groups }: Requester,
  { namespace, name = "" }: ReviewedRef,
  { verb, resource }: Right,
): string => JSON.stringify([user, groups, namespace, name, verb, resource]);

const readRight: Right = { verb: "get", resource: "connectors" };

function requiredRights(
  verb: Verb,
  { separatePush, requireProxyVerb }: AccessReviewOptions,
): readonly Right[] {
  return [
    readRight,
    ...(requireProxyVerb ? [{ verb: "get", resource: "connectors/proxy" } as const] : []),
    ...(verb === "push" && separatePush
      ? [{ verb: "update", resource: "connectors/proxy" } as const]
      : []),
  ];
}

async function review(
  client: Pick<ApiClient, "request">,
  { user, groups }: Requester,
  { namespace, name }: ReviewedRef,
  { verb, resource }: Right,
): Promise<boolean> {
  const [plural, subresource] = resource.split("/");
  const body = {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SubjectAccessReview",
    spec: {
      user,
      groups,
      resourceAttributes: {
        group,
        resource: plural,
        verb,
        namespace,
        ...(name === undefined ? {} : { name }),
        ...(subresource === undefined ? {} : { subresource }),
      },
    },
  };
  const path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
  const response = await client
    .request({ method: "POST", path, body })
    .catch(refusedAsUnavailable("access can't be reviewed"));
  return property(property(response, "status"), "allowed") === true;
}

/** The refusal that names the missing rights and ends in the rules of a Role that grants them, to be pasted. */
function refuse(
  { user }: Requester,
  { namespace, name }: ConnectorRef,
  missing: readonly Right[],
): Result<void> {
  const wanted = missing.map(
    ({ verb, resource }) => `${verb} ${resource.replace("connectors", `connectors.${group}`)}`,
  );
  const rules = missing.map(
    ({ verb, resource }) =>
      `{apiGroups: [${group}], resources: [${resource}], resourceNames: [${name}], verbs: [${verb}]}`,
  );
  const reason =
    `allow ${user} to ${wanted.join(" and ")} "${name}" in namespace ${namespace}, if there is one: ` +
    `bind it there to a Role with rules: [${rules.join(", ")}]`;
  return { ok: false, reason };
}
