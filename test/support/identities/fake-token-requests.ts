import { type FakeApiServer, type FakeRequest, statusOf } from "../../kube/fake-api-server.ts";
import type { Issuer } from "./issuer.ts";

/** The part of a fake API server that issues tokens of ServiceAccounts. */
export interface FakeTokenRequests {
  /** Makes a ServiceAccount, anew where it exists. Its tokens may be requested where `isAllowed` says so. */
  addAccount(name: string, options?: AccountOptions): void;
  removeAccount(name: string, namespace?: string): void;
  /** Gives or takes the right to a ServiceAccount and its tokens, as the team's Role does. */
  allow(name: string, isAllowed: boolean, namespace?: string): void;
  /** The audiences of all tokens that were requested. */
  readonly audiences: string[];
  /** How often ServiceAccounts were looked at. */
  readonly looks: number;
  /** Changes the claims of a token before it is issued. */
  forge: ((claims: Record<string, unknown>) => Record<string, unknown>) | undefined;
}

export interface AccountOptions {
  readonly namespace?: string;
  readonly isAllowed?: boolean;
}

/**
 * Lets a fake API server issue tokens as a real one does: for ServiceAccounts that exist, to whoever has the right, and
 * for no less than ten minutes. What our own policy refuses (no audience, several) is refused here, too.
 */
export function addTokenRequests(server: FakeApiServer, issuer: Issuer): FakeTokenRequests {
  const allowed = new Set<string>();
  const audiences: string[] = [];
  let looks = 0;
  const path = /^\/api\/v1\/namespaces\/([^/]+)\/serviceaccounts\/([^/]+)(\/token)?$/;
  const forbidden = (what: string) => ({
    status: 403,
    body: statusOf(403, `${what} is forbidden`),
  });

  type Answer = ReturnType<NonNullable<FakeApiServer["intercept"]>>;

  function review(request: FakeRequest): Answer {
    const { spec } = request.body as { spec: { resourceAttributes: Record<string, string> } };
    const { verb, resource, subresource, namespace, name } = spec.resourceAttributes;
    const isToken = verb === "create" && resource === "serviceaccounts" && subresource === "token";
    const isAllowed = isToken && allowed.has(`${namespace}/${name}`);
    return { status: 201, body: { status: { allowed: isAllowed } } };
  }

  function answer(request: FakeRequest): Answer {
    if (request.path.endsWith("/selfsubjectaccessreviews")) return review(request);
    const [, namespace = "", name = "", token] = path.exec(request.path) ?? [];
    if (name === "") return undefined;
    if (!allowed.has(`${namespace}/${name}`)) return forbidden(`serviceaccounts "${name}"`);
    if (token === undefined) {
      looks += 1;
      return undefined;
    }
    const account = server.get("serviceaccounts", name, namespace);
    if (account === undefined) return { status: 404, body: statusOf(404, `"${name}" not found`) };
    return issue(request, namespace, name, account.metadata.uid ?? "");
  }

  function issue(request: FakeRequest, namespace: string, name: string, uid: string) {
    const { spec } = request.body as {
      spec: { audiences: readonly string[]; expirationSeconds: number };
    };
    if (spec.audiences.length !== 1) return { status: 422, body: statusOf(422, "one audience") };
    if (spec.expirationSeconds < 600) return { status: 422, body: statusOf(422, "too short") };
    audiences.push(...spec.audiences);
    const claims = {
      aud: [...spec.audiences],
      sub: `system:serviceaccount:${namespace}:${name}`,
      "kubernetes.io": { namespace, serviceaccount: { name, uid } },
      lifetimeSeconds: spec.expirationSeconds,
    };
    const token = issuer.issue(fake.forge?.(claims) ?? claims);
    const expires = new Date(issuer.now() + spec.expirationSeconds * 1000).toISOString();
    return { status: 201, body: { status: { token, expirationTimestamp: expires } } };
  }

  const before = server.intercept;
  server.intercept = (request) => before?.(request) ?? answer(request);
  const fake: FakeTokenRequests = {
    addAccount(name, { namespace = "team-a", isAllowed = true } = {}) {
      if (server.get("serviceaccounts", name, namespace) !== undefined) {
        server.remove("serviceaccounts", name, namespace);
      }
      server.put("serviceaccounts", {
        metadata: { name, namespace },
      });
      fake.allow(name, isAllowed, namespace);
    },
    removeAccount: (name, namespace = "team-a") =>
      server.remove("serviceaccounts", name, namespace),
    allow(name, isAllowed, namespace = "team-a") {
      if (isAllowed) allowed.add(`${namespace}/${name}`);
      else allowed.delete(`${namespace}/${name}`);
    },
    audiences,
    get looks() {
      return looks;
    },
    forge: undefined,
  };
  return fake;
}
