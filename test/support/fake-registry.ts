import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, isIP } from "node:net";
import type { TlsOptions } from "node:tls";
import { createAuthority, createLeafIssuer } from "../../src/certificate-authority.ts";
import type { Stoppable } from "./cleanup.ts";
import {
  answerTokenRequest,
  createFakeAuth,
  type FakeAuth,
  fakeService,
  refusal,
  wantedAccess,
} from "./fake-registry-auth.ts";
import { type Repositories, type Repository, repositoryIn } from "./fake-registry-content.ts";
import { type Exchange, makeExchange, type RecordedRequest } from "./fake-registry-exchange.ts";
import { allFeatures, type Features } from "./fake-registry-features.ts";
import { answerManifest, answerReferrers } from "./fake-registry-manifests.ts";
import { answerBlob, answerCatalog, answerTags } from "./fake-registry-reads.ts";
import type { TargetKind } from "./fake-registry-target.ts";
import {
  beginUpload,
  continueUpload,
  type LocationStyle,
  type Uploads,
} from "./fake-registry-uploads.ts";

export interface FakeRegistryOptions {
  readonly auth?: FakeAuth["mode"];
  /** User name → password; `{alice: "secret-of-alice"}` where nothing is said. */
  readonly users?: Readonly<Record<string, string>>;
  /** Whether it speaks TLS, with a certificate of its own authority; or how it does. */
  readonly tls?: boolean | TlsOptions;
  /** `127.0.0.1`, unless another loopback address, or `localhost`, is wanted. */
  readonly hostname?: string;
  /** Where it listens: at its host name, where that is an address, else at `127.0.0.1`. */
  readonly address?: string;
  /** The port to listen at; a free one, where nothing is said. */
  readonly port?: number;
  /** What stands before `/v2/`, such as `/artifactory/api/docker/x`. */
  readonly basePath?: string;
  /** Milliseconds; a test that lets tokens expire brings its own clock. */
  readonly now?: () => number;
}

export type Handler = (exchange: Exchange) => Promise<void> | void;

/** A registry in memory that a test can look into, and whose every behaviour it can change. */
export interface FakeRegistry extends Stoppable {
  /** `127.0.0.1:34567` */
  readonly host: string;
  readonly port: number;
  /** `http://127.0.0.1:34567`, or https; without the base path. */
  readonly url: string;
  /** PEM of the authority that has signed its certificate, with TLS. */
  readonly ca: string | undefined;
  readonly auth: FakeAuth;
  readonly features: Features;
  readonly repositories: Repositories;
  repository(name: string): Repository;
  uploadLocation: LocationStyle;
  /** Everything that has arrived, in order. */
  readonly requests: RecordedRequest[];
  /**
   * Puts a handler before what the registry does by itself. The latest comes first; `next()` goes on
   * to the one before.
   * @param route `GET blob`, `* upload`, `* *`: a method and what the request is about; or
   *   `GET /path`, where a `*` at the end stands for any rest
   * @param when `before auth` also sees requests that lack credentials
   * @returns a function that takes the handler away
   */
  on(route: Route, handler: Handler, when?: "after auth" | "before auth"): () => void;
  stop(): Promise<void>;
}

export type Route = `${string} ${TargetKind | "*" | `/${string}`}`;

/** Starts a registry on a free port. */
export async function startFakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const hostname = options.hostname ?? "127.0.0.1";
  const made = options.tls === true ? await makeKeys(hostname) : undefined;
  const keys = typeof options.tls === "object" ? options.tls : made;
  const settings = { requestTimeout: 0, maxHeaderSize: 65_536 };
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    void answer(request, response);
  };
  const server = keys
    ? createTlsServer({ ...settings, ...keys }, listener)
    : createServer(settings, listener);
  const address = options.address ?? (isIP(hostname) ? hostname : "127.0.0.1");
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(options.port ?? 0, address, resolve);
  });
  const { port } = server.address() as AddressInfo;
  const host = `${hostname}:${port}`;
  const basePath = options.basePath ?? "";
  const uploads: Uploads = new Map();
  const early: Override[] = [];
  const late: Override[] = [];
  const registry: FakeRegistry = {
    host,
    port,
    url: `${keys ? "https" : "http"}://${host}`,
    ca: made?.authority,
    auth: createFakeAuth(options.auth ?? "none", options.users ?? { alice: "secret-of-alice" }),
    features: allFeatures(),
    repositories: new Map(),
    repository: (name) => repositoryIn(registry.repositories, name),
    uploadLocation: "relative",
    requests: [],
    on(route, handler, when = "after auth") {
      const overrides = when === "after auth" ? late : early;
      const override = { matches: routeMatcher(route), handler };
      overrides.unshift(override);
      return () => void overrides.splice(overrides.indexOf(override), 1);
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  const now = options.now ?? Date.now;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = makeExchange(request, response, { uploads, basePath });
    registry.requests.push(exchange.record);
    const steps: Handler[] = [
      ...early.filter(({ matches }) => matches(exchange)).map(({ handler }) => handler),
      (inner) => authorize(registry, inner, now()),
      ...late.filter(({ matches }) => matches(exchange)).map(({ handler }) => handler),
      (inner) => answerByItself(registry, uploads, inner, now()),
    ];
    try {
      await run(steps, exchange);
    } catch (error) {
      response.destroy();
      // A client that goes away in the middle of its request is no mistake of the test's.
      if (!request.destroyed) throw error;
    }
  }
  return registry;
}

interface Override {
  readonly matches: (exchange: Exchange) => boolean;
  readonly handler: Handler;
}

async function run(steps: readonly Handler[], exchange: Exchange): Promise<void> {
  const [first, ...rest] = steps;
  await first?.({ ...exchange, next: () => run(rest, exchange) });
}

function routeMatcher(route: Route): (exchange: Exchange) => boolean {
  const [method = "", what = ""] = route.split(" ");
  const isWanted = what.startsWith("/") ? pathMatcher(what) : kindMatcher(what);
  return (exchange) => (method === "*" || method === exchange.request.method) && isWanted(exchange);
}

const pathMatcher =
  (pattern: string) =>
  ({ path }: Exchange): boolean =>
    pattern.endsWith("*") ? path.startsWith(pattern.slice(0, -1)) : path === pattern;

const kindMatcher =
  (kind: string) =>
  ({ target }: Exchange): boolean =>
    kind === "*" || kind === target.kind;

async function authorize(registry: FakeRegistry, exchange: Exchange, now: number): Promise<void> {
  const { request, target, query } = exchange;
  if (target.kind === "token") return exchange.next();
  const from = target.kind === "uploads" ? (query.get("from") ?? undefined) : undefined;
  const { method = "" } = request;
  const asked = method === "DELETE" && registry.auth.deletesAsPush ? "PUT" : method;
  const access = wantedAccess(asked, target, from);
  const { authorization } = request.headers;
  const refused = refusal(registry.auth, {
    ...(authorization !== undefined && { authorization }),
    access,
    now,
  });
  if (refused === undefined) return exchange.next();
  const scope = access.map(({ type, name, actions }) => `${type}:${name}:${actions}`).join(" ");
  const realm = `${registry.url}/token`;
  const challenge = registry.auth.challenge({ realm, service: fakeService, scope, ...refused });
  exchange.response.setHeader("WWW-Authenticate", challenge);
  exchange.fail(401, "UNAUTHORIZED");
}

async function answerByItself(
  registry: FakeRegistry,
  uploads: Uploads,
  exchange: Exchange,
  now: number,
): Promise<void> {
  const { repositories, features, url: origin, uploadLocation: style } = registry;
  const options = { repositories, features, uploads, origin, style };
  if (isRefused(exchange)) return exchange.fail(405, "UNSUPPORTED");
  switch (exchange.target.kind) {
    case "ping":
      return exchange.json(200, {}, { "Docker-Distribution-Api-Version": "registry/2.0" });
    case "token":
      return answerTokenRequest(registry.auth, exchange, now);
    case "catalog":
      return answerCatalog(options, exchange);
    case "blob":
      return answerBlob(options, exchange);
    case "manifest":
      return answerManifest(options, exchange);
    case "tags":
      return answerTags(options, exchange);
    case "referrers":
      return answerReferrers(options, exchange);
    case "uploads":
      return beginUpload(options, exchange);
    case "upload": {
      const upload = uploads.get(exchange.path);
      if (upload !== undefined) return continueUpload(options, exchange, upload);
      break;
    }
    default:
  }
  exchange.fail(404, "NOT_FOUND");
}

/** Lists are there to be read, and uploads to be begun; the others look for themselves. */
function isRefused({ target: { kind }, request: { method = "" } }: Exchange): boolean {
  if (kind === "uploads") return method !== "POST";
  const isList = ["ping", "catalog", "tags", "referrers"].includes(kind);
  return isList && method !== "GET" && method !== "HEAD";
}

/** Makes keys for a server, and the authority that has signed them, in PEM. */
export async function makeKeys(
  hostname: string,
): Promise<{ authority: string; key: string; cert: string }> {
  const now = new Date();
  const authority = await createAuthority("fake registry", now);
  const { certificate, privateKey } = await (await createLeafIssuer(authority))(hostname, now);
  return { authority: authority.certificate, key: privateKey, cert: certificate };
}
