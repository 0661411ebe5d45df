import type { ImageHosts } from "../../../src/connector/image-hosts.ts";
import { createApiClient } from "../../../src/kube/api-client.ts";
import {
  connectorsPath,
  createConnectorFinder,
  createConnectorIndex,
} from "../../../src/kube/find-connector.ts";
import { createAccessReviewer } from "../../../src/kube/may-use.ts";
import { tenantBounds } from "../../../src/kube/object-bounds.ts";
import type { KubeObject } from "../../../src/kube/object-store.ts";
import { createTokenReviewer } from "../../../src/kube/verify-token.ts";
import { createWatchedCache } from "../../../src/kube/watched-cache.ts";
import type { RequestReport } from "../../../src/proxy/request-report.ts";
import { type FakeApiServer, startFakeApiServer } from "../../kube/fake-api-server.ts";
import { cleanup, type Stoppable } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type PlainResponse, plainRequest } from "../../support/plain-request.ts";
import { basicAuth } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

/** A token of a Pod, as a kubelet gets it: nobody signs it, and the API server of these tests knows it. */
export interface PodToken {
  readonly token: string;
  /** `team-a/builder` */
  readonly account: string;
}

/** What a container runtime asks. */
export interface MirrorRequest {
  readonly method?: string;
  /** `app/web/manifests/1` */
  readonly path: string;
  /** The host of the image's name. */
  readonly ns: string;
  readonly token?: PodToken;
  /** The user of the login. */
  readonly user?: string;
  readonly scheme?: "http" | "https";
  /** In place of the one that the token makes; none where it is empty. */
  readonly authorization?: string;
  /** In place of the query that `ns` makes. */
  readonly query?: string;
  /** The Host header, in place of the proxy's own address. */
  readonly host?: string;
  readonly body?: string;
}

/** The proxy with its mirror, before an API server of the tests. */
export interface MirrorCluster extends Stoppable {
  readonly api: FakeApiServer;
  readonly proxy: TestProxy;
  readonly reports: RequestReport[];
  /** `team-a/builder get team-a/harbor`: who may get which connectors. */
  readonly rights: Set<string>;
  /** A token of a Pod of a ServiceAccount, for the images' audience unless said otherwise. */
  tokenOf(account: string, options?: { readonly audiences?: readonly string[] }): PodToken;
  /** Writes a Connector, which may have a CA, and waits until the proxy knows it. */
  connect(name: string, address: string, options?: MirroredConnector): Promise<void>;
  ask(request: MirrorRequest): Promise<PlainResponse>;
}

export interface MirroredConnector {
  readonly namespace?: string;
  readonly ca?: string | undefined;
  readonly spec?: Readonly<Record<string, unknown>>;
}

export const imagesAudience = "connectors-images";
export const volumesAudience = "connectors-proxy";

export interface MirrorClusterOptions {
  readonly imageHosts: readonly string[];
  readonly withoutConnector?: "refuse" | "anonymous";
}

export async function startMirrorCluster({
  imageHosts,
  withoutConnector = "refuse",
}: MirrorClusterOptions): Promise<MirrorCluster> {
  const resources = cleanup();
  const api = resources.add(await startFakeApiServer());
  const tokens = new Map<string, { account: string; pod: string; audiences: readonly string[] }>();
  const rights = new Set<string>();
  const reports: RequestReport[] = [];
  api.intercept = ({ path, body }) => {
    if (path === "/openid/v1/jwks") return { status: 403 };
    const { spec } = (body ?? {}) as { readonly spec?: Record<string, unknown> };
    if (path.endsWith("/tokenreviews")) {
      return { status: 201, body: { status: reviewed(tokens.get(String(spec?.token)), spec) } };
    }
    if (!path.endsWith("/subjectaccessreviews")) return undefined;
    const {
      namespace,
      name = "*",
      verb,
    } = (spec?.resourceAttributes ?? {}) as Record<string, string>;
    const account = String(spec?.user).split(":").slice(2).join("/");
    const allowed = rights.has(`${account} ${verb} ${namespace}/${name}`);
    return { status: 201, body: { status: { allowed } } };
  };

  const abort = new AbortController();
  resources.defer(() => abort.abort());
  const client = createApiClient({ access: api.access });
  const cache = createWatchedCache<KubeObject>({
    client,
    path: connectorsPath,
    bounds: tenantBounds,
    log: () => undefined,
    signal: abort.signal,
    random: Math.random,
  });
  const connectorsAt = createConnectorIndex(cache);
  const findConnector = createConnectorFinder(cache);
  await cache.synced;
  const reviews = { client, now: Date.now };
  const proxy = resources.add(
    await startTestProxy({
      findConnector,
      verifyToken: createTokenReviewer({
        ...reviews,
        audience: volumesAudience,
        otherAudience: imagesAudience,
      }),
      mayUse: createAccessReviewer({
        ...reviews,
        separatePush: false,
        requireProxyVerb: false,
        defaultPermission: "none",
        findConnector,
      }),
      mirror: {
        verifyImageToken: createTokenReviewer({
          ...reviews,
          audience: imagesAudience,
          otherAudience: volumesAudience,
          advice: "the kubelet sends one",
          mayBeForeign: true,
        }),
        connectorsAt,
        imageHosts: new Set(imageHosts) satisfies ImageHosts,
        withoutConnector,
      },
      observer: {
        requestStarted: () => undefined,
        requestEnded: (report) => reports.push(report),
        tokenNeeded: () => undefined,
      },
    }),
  );

  return {
    api,
    proxy,
    reports,
    rights,
    stop: resources.stop,
    tokenOf(account, { audiences = [imagesAudience] } = {}) {
      const claims = { aud: audiences, exp: Date.now() / 1000 + 600, number: tokens.size };
      const token = jwt(claims);
      tokens.set(token, { account, pod: `pod-${tokens.size}`, audiences });
      return { token, account };
    },
    async connect(name, address, { namespace = "team-a", ca, spec = {} } = {}) {
      proxy.surroundings.secrets.set(name, secretsWith(ca));
      api.put("connectors", {
        apiVersion: "connectors.alauda.io/v1alpha1",
        kind: "Connector",
        metadata: { name, namespace },
        spec: { connectorClassName: "oci", address, ...spec },
      });
      const { resourceVersion } = api.get("connectors", name, namespace)?.metadata ?? {};
      await eventually(
        () => cache.get(name, namespace)?.metadata.resourceVersion === resourceVersion,
        () => `the proxy does not know ${namespace}/${name}`,
      );
    },
    ask({ method = "GET", path, ns, token, user = "connectors", scheme = "https", ...request }) {
      const login = token === undefined ? "" : basicAuth(token.token, user);
      const { authorization = login, query = `ns=${ns}`, host, body } = request;
      return plainRequest(`${scheme}://${proxy[scheme]}/`, {
        method,
        target: `/v2/${path}?${query}`,
        headers: {
          ...(authorization === "" ? {} : { authorization }),
          ...(host === undefined ? {} : { host }),
        },
        ...(scheme === "https" && { ca: proxy.surroundings.authority.certificate }),
        ...(body === undefined ? {} : { body }),
      });
    },
  };
}

/** Who holds a token, as a TokenReview says it. */
function reviewed(
  known: { account: string; pod: string; audiences: readonly string[] } | undefined,
  spec: Record<string, unknown> | undefined,
): object {
  if (known === undefined) return { error: "unknown" };
  const wanted = spec?.audiences as readonly string[];
  const [namespace, name] = known.account.split("/");
  return {
    authenticated: true,
    audiences: known.audiences.filter((audience) => wanted.includes(audience)),
    user: {
      username: `system:serviceaccount:${namespace}:${name}`,
      groups: ["system:serviceaccounts", "system:authenticated"],
      extra: {
        "authentication.kubernetes.io/pod-name": [known.pod],
        "authentication.kubernetes.io/pod-uid": [`uid of ${known.pod}`],
      },
    },
  };
}

/** A JWT without a signature. */
export const jwt = (claims: object): string =>
  ["{}", JSON.stringify(claims), "signature"]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");

export const registryLogin = { username: "alice", password: "secret-of-alice" };

/** What a connector's Secrets have: the fake registry's login, and its CA. */
function secretsWith(ca: string | undefined): {
  current: { credential: typeof registryLogin; caCertificates: readonly string[] };
  renewed: { credential: typeof registryLogin; caCertificates: readonly string[] };
} {
  const secrets = { credential: registryLogin, caCertificates: ca === undefined ? [] : [ca] };
  return { current: secrets, renewed: secrets };
}
