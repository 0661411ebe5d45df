/** The identity of a ServiceAccount: whether the team has allowed its use, and tokens of it. */
import type {
  ServiceAccountRef,
  ServiceAccountTokens,
  UnusableServiceAccount,
} from "../connector/platform.ts";
import { LoginError, type RequestToken } from "./login.ts";

/** A ServiceAccount that may be used. */
export interface UsableAccount {
  readonly account: ServiceAccountRef;
  /** Differs where a login of before is not good any more: the ServiceAccount is another one. */
  readonly uid: string;
}

/** The accounts of this product that take tokens of tenants' ServiceAccounts. */
export type OwnAccounts = readonly ServiceAccountRef[];

/**
 * The commands that allow this product to use one ServiceAccount: to see it, and to request its tokens.
 * @example
 * allowCommand({ namespace: "team-a", name: "puller" }, accounts);
 */
export function allowCommand({ namespace, name }: ServiceAccountRef, own: OwnAccounts): string {
  const role = `connectors-identity-${name}`;
  const accounts = own.map((one) => `--serviceaccount=${one.namespace}:${one.name}`).join(" ");
  return (
    `kubectl create role ${role} -n ${namespace} --verb=get,create --resource=serviceaccounts,serviceaccounts/token ` +
    `--resource-name=${name} && kubectl create rolebinding ${role} -n ${namespace} --role=${role} ${accounts}`
  );
}

/**
 * Looks whether a ServiceAccount may be used.
 * @throws LoginError; Unavailable
 */
export async function checkAccount(
  account: ServiceAccountRef,
  tokens: ServiceAccountTokens,
  own: OwnAccounts,
): Promise<UsableAccount> {
  const found = await tokens.find(account);
  if (found.state !== "usable") throw noAccount(account, found, own);
  return { account, uid: found.uid };
}

/** Requests tokens of a ServiceAccount that may be used. */
export const tokensOf =
  ({ account, uid }: UsableAccount, tokens: ServiceAccountTokens, own: OwnAccounts): RequestToken =>
  async (audience, lifetimeSeconds) => {
    const issued = await tokens.request({ account, uid, audience, lifetimeSeconds });
    if (issued.state !== "issued") throw noAccount(account, issued, own);
    return issued;
  };

function noAccount(
  account: ServiceAccountRef,
  { state, reason }: UnusableServiceAccount,
  own: OwnAccounts,
): LoginError {
  const { namespace, name } = account;
  return state === "missing"
    ? new LoginError(
        "ServiceAccountNotFound",
        `${reason}: create it (kubectl create serviceaccount ${name} -n ${namespace}), or name another one in spec.auth.serviceAccountRef`,
      )
    : new LoginError(
        "TokenForbidden",
        `the ServiceAccount ${namespace}/${name} may not be used (${reason}); to allow it: ${allowCommand(account, own)}`,
      );
}
