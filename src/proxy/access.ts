import { type Action, isAllowed, matches } from "../connector/access-rules.ts";
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import type { Identity } from "../connector/surroundings.ts";
import { denied } from "./registry-error.ts";
import type { Endpoint } from "./request/request-target.ts";

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
      detail: "the rules are in the connector's spec.params, under rules",
    },
  );
}

/** Whether a reference is a tag that is made once and never changed. */
export const isImmutableTag = ({ immutableTags = [] }: Connector, reference: string): boolean =>
  !reference.includes(":") && immutableTags.some((pattern) => matches(pattern, reference));
