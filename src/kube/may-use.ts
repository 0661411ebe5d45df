import type { ConnectorRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import type { MayUse, Requester, Result, Verb } from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import { refusedAsUnavailable } from "./api-error.ts";
import { createLookupCache, type OnLookup } from "./lookup-cache.ts";

export interface AccessReviewOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Whether a push needs a right of its own. */
  readonly separatePush: boolean;
  /** Whether to read a Connector is not enough to use it. */
  readonly requireProxyVerb: boolean;
  /** For how many milliseconds a right that is there is not asked about again: a minute unless given. */
  readonly allowedMs?: number;
  /** Is called for each value with where it came from. */
  readonly onLookup?: OnLookup;
}

const group = "connectors.alauda.io";

/** A right on one connector, as RBAC sees it. */
interface Right {
  readonly verb: "get" | "update";
  readonly resource: "connectors" | "connectors/proxy";
}

const negativeMs = 5_000;
/** While the API server is away nobody can take a right back, either. */
const usableMs = 10 * 60_000;
const maxEntries = 10_000;

/** Asks the API server for the rights of whoever wants to use a connector. */
export function createAccessReviewer(options: AccessReviewOptions): MayUse {
  const { client, now, allowedMs = 60_000, onLookup } = options;
  const answers = createLookupCache<boolean>({ maxEntries, now, onLookup });
  const has = (who: Requester, ref: ConnectorRef, right: Right): Promise<boolean> => {
    const { user, groups } = who;
    const key = JSON.stringify([user, groups, ref.namespace, ref.name, right.verb, right.resource]);
    return answers.get(key, async () => {
      const value = await review(client, who, ref, right);
      return value ? { value, freshMs: allowedMs, usableMs } : { value, freshMs: negativeMs };
    });
  };
  return async (who, ref, verb) => {
    const rights = rightsFor(verb, options);
    const held = await Promise.all(rights.map((right) => has(who, ref, right)));
    const missing = rights.filter((_, index) => !held[index]);
    return missing.length === 0 ? { ok: true, value: undefined } : refuse(who, ref, missing);
  };
}

function rightsFor(
  verb: Verb,
  { separatePush, requireProxyVerb }: AccessReviewOptions,
): readonly Right[] {
  return [
    { verb: "get", resource: "connectors" },
    ...(requireProxyVerb ? [{ verb: "get", resource: "connectors/proxy" } as const] : []),
    ...(verb === "push" && separatePush
      ? [{ verb: "update", resource: "connectors/proxy" } as const]
      : []),
  ];
}

async function review(
  client: Pick<ApiClient, "request">,
  { user, groups }: Requester,
  { namespace, name }: ConnectorRef,
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
        name,
        ...(subresource === undefined ? {} : { subresource }),
      },
    },
  };
  const path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
  const answer = await client
    .request({ method: "POST", path, body })
    .catch(refusedAsUnavailable("access can't be reviewed"));
  return property(property(answer, "status"), "allowed") === true;
}

/** The sentence ends in the rules of the Role that is missing, to be pasted. */
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
    `allow ${user} to ${wanted.join(" and ")} "${name}" in namespace ${namespace}: ` +
    `bind it there to a Role with rules: [${rules.join(", ")}]`;
  return { ok: false, reason };
}
