/** Tokens of tenants' ServiceAccounts, as far as a Role of the tenant allows that: one audience each, by TokenRequest. */
import { listOf, property } from "../connector/document.ts";
import { claimsOf } from "../connector/jwt-claims.ts";
import {
  type ServiceAccountRef,
  type ServiceAccountToken,
  type ServiceAccountTokens,
  type TokenDemand,
  Unavailable,
  type UnusableServiceAccount,
} from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import { ApiError, hasStatus } from "./api-error.ts";
import { createFairQueue } from "./fair-queue.ts";

export interface ServiceAccountTokensOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Is called for each question that is not asked, since too many others wait. */
  readonly onReject?: (() => void) | undefined;
}

/** Looks and requests at a time. */
const concurrency = 4;

/** Creates what asks the API server for tokens, in turns of namespaces. */
export function createServiceAccountTokens({
  client,
  onReject,
}: ServiceAccountTokensOptions): ServiceAccountTokens {
  const queue = createFairQueue({
    what: "requests for tokens of ServiceAccounts",
    concurrency,
    onReject,
  });
  const inTurn = <T>({ namespace, name }: ServiceAccountRef, task: () => Promise<T>): Promise<T> =>
    queue.run({ group: namespace, member: name }, task);

  async function look(account: ServiceAccountRef): ReturnType<ServiceAccountTokens["find"]> {
    const { namespace, name } = account;
    try {
      const [object, review] = await Promise.all([
        client.request({ path: accountPath(account) }),
        client.request({
          method: "POST",
          path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
          body: {
            apiVersion: "authorization.k8s.io/v1",
            kind: "SelfSubjectAccessReview",
            spec: {
              resourceAttributes: {
                namespace,
                name,
                verb: "create",
                group: "",
                resource: "serviceaccounts",
                subresource: "token",
              },
            },
          },
        }),
      ]);
      if (property(property(review, "status"), "allowed") !== true) {
        const reason = `no Role allows to create serviceaccounts/token of ${name} in ${namespace}`;
        return { state: "forbidden", reason };
      }
      return { state: "usable", uid: String(property(property(object, "metadata"), "uid")) };
    } catch (error) {
      return unusable(account, error);
    }
  }

  async function request(demand: TokenDemand): ReturnType<ServiceAccountTokens["request"]> {
    const { account, audience, lifetimeSeconds } = demand;
    try {
      const issued = await client.request({
        method: "POST",
        path: `${accountPath(account)}/token`,
        body: {
          apiVersion: "authentication.k8s.io/v1",
          kind: "TokenRequest",
          // Exactly one: an empty list would mean the API server's own audience.
          spec: { audiences: [audience], expirationSeconds: lifetimeSeconds },
        },
      });
      return readToken(issued, demand);
    } catch (error) {
      return unusable(account, error);
    }
  }

  return {
    find: (account) => inTurn(account, () => look(account)),
    request: (demand) => inTurn(demand.account, () => request(demand)),
  };
}

const accountPath = ({ namespace, name }: ServiceAccountRef): string =>
  `/api/v1/namespaces/${namespace}/serviceaccounts/${name}`;

/** @throws what says nothing about the ServiceAccount */
function unusable({ namespace, name }: ServiceAccountRef, error: unknown): UnusableServiceAccount {
  if (hasStatus(error, 404)) {
    return { state: "missing", reason: `there is no ServiceAccount ${namespace}/${name}` };
  }
  if (hasStatus(error, 403) && error instanceof ApiError) {
    return { state: "forbidden", reason: error.message };
  }
  if (error instanceof ApiError) {
    const what = `a token of the ServiceAccount ${namespace}/${name} can't be requested`;
    throw new Unavailable(`${what}: ${error.message}`, { cause: error });
  }
  throw error;
}

/** @throws Unavailable where it is another token than was requested */
function readToken(
  issued: unknown,
  { account: { namespace, name }, uid, audience }: TokenDemand,
): ServiceAccountToken {
  const status = property(issued, "status");
  const value = property(status, "token");
  const claims = typeof value === "string" ? claimsOf(value) : undefined;
  const audiences = listOf(claims?.aud);
  const owner = property(property(claims, "kubernetes.io"), "serviceaccount");
  const isRequested =
    audiences.length === 1 &&
    audiences[0] === audience &&
    claims?.sub === `system:serviceaccount:${namespace}:${name}` &&
    property(owner, "uid") === uid;
  if (typeof value !== "string" || !isRequested) {
    const message = `the API server has issued another token for the ServiceAccount ${namespace}/${name} than was requested`;
    throw new Unavailable(message);
  }
  const expiresAt = Date.parse(String(property(status, "expirationTimestamp")));
  return { state: "issued", value, expiresAt: Number.isNaN(expiresAt) ? undefined : expiresAt };
}
