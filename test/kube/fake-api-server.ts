import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { isDeepStrictEqual } from "node:util";
import type { ApiAccess } from "../../src/kube/api-access.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import type { Stoppable } from "../support/cleanup.ts";
import { generationAfter, written } from "./fake-writes.ts";

export interface FakeRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: unknown;
  /** The media types that the client takes. */
  readonly accept?: string | undefined;
}

/** What a test makes of a request: a status with a body, or nothing at all for as long as it is open. */
export type FakeAnswer = { readonly status: number; readonly body?: unknown } | "silence" | "cut";

/** An object as a test writes it; what it leaves out is made up. */
export interface FakeObject {
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly [field: string]: unknown;
}

/**
 * Enough of an API server to see how its clients bear what goes wrong: lists in pages, watches with
 * their past, and every way in which they fail. A real one is used in test/cluster.
 */
export interface FakeApiServer extends Stoppable {
  readonly access: ApiAccess;
  /** Every request, from the first. */
  readonly requests: readonly FakeRequest[];
  /** Creates or changes an object of a collection, which is called by its plural. */
  put(plural: string, object: FakeObject): void;
  get(plural: string, name: string, namespace?: string): KubeObject | undefined;
  remove(plural: string, name: string, namespace?: string): void;
  /** Forgets all that has happened, as etcd does from time to time: older watches can't go on. */
  compact(): void;
  /** Tells every watch of the version it is at. */
  bookmark(): void;
  /** Ends all watches as agreed. */
  endWatches(): void;
  /** Cuts all connections. */
  cut(): void;
  /** How many watches are open. */
  readonly watches: number;
  /** How many connections there were at the same time at most. */
  readonly mostConnections: number;
  /** What is answered instead of what would be; undefined where the request is served as usual. */
  intercept: ((request: FakeRequest) => FakeAnswer | undefined) | undefined;
  /** What is waited for before a request is answered. */
  delay: ((request: FakeRequest) => Promise<unknown> | undefined) | undefined;
  /** Nobody listens any more, all connections are cut. */
  goAway(): Promise<void>;
  /** Listens again, at the same port. */
  comeBack(): Promise<void>;
  stop(): Promise<void>;
}

interface HistoricEvent {
  readonly plural: string;
  readonly version: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: KubeObject;
}

/** Who writes the status of an object, as far as a test says so. */
function statusManagers({ metadata }: FakeObject): readonly unknown[] {
  const { managedFields = [] } = metadata as {
    managedFields?: readonly { subresource?: string }[];
  };
  return managedFields.filter(({ subresource }) => subresource === "status");
}

interface Watcher {
  readonly plural: string;
  readonly accepts: (object: KubeObject) => boolean;
  readonly response: ServerResponse;
}

export async function startFakeApiServer(): Promise<FakeApiServer> {
  const collections = new Map<string, Map<string, KubeObject>>();
  const watchers = new Set<Watcher>();
  const requests: FakeRequest[] = [];
  let history: HistoricEvent[] = [];
  let version = 100;
  let oldest = 0;
  let made = 0;

  const collection = (plural: string): Map<string, KubeObject> => {
    const found = collections.get(plural) ?? new Map<string, KubeObject>();
    collections.set(plural, found);
    return found;
  };
  const write = ({ response }: Watcher, type: string, object: unknown): void =>
    void response.write(`${JSON.stringify({ type, object })}\n`);
  const happen = (plural: string, type: HistoricEvent["type"], object: KubeObject): void => {
    history.push({ plural, version, type, object });
    for (const watcher of watchers) {
      if (watcher.plural === plural && watcher.accepts(object)) write(watcher, type, object);
    }
  };

  const server = createServer((request, response) => {
    void readRequest(request).then(async (call) => {
      requests.push(call);
      await fake.delay?.(call);
      const answer = fake.intercept?.(call);
      if (answer === "silence") return;
      if (answer === "cut") request.socket.destroy();
      else if (answer !== undefined) respond(response, answer.status, answer.body);
      else serve(call, response);
    });
  });

  let mostConnections = 0;
  const connections = new Set<unknown>();
  server.on("connection", (socket) => {
    connections.add(socket);
    mostConnections = Math.max(mostConnections, connections.size);
    socket.on("close", () => connections.delete(socket));
  });

  function serve(call: FakeRequest, response: ServerResponse): void {
    const target = targetOf(call.path);
    if (target === undefined) {
      respond(response, 404, statusOf(404, "no such path"));
      return;
    }
    if (call.method === "GET") {
      read(call, target, response);
      return;
    }
    const { status, body } = change(call, target);
    respond(response, status, body);
  }

  function read(call: FakeRequest, target: Target, response: ServerResponse): void {
    const { plural, namespace, name } = target;
    const accepts = selection(namespace, call.query);
    if (name !== undefined) {
      const object = collection(plural).get(`${namespace ?? ""}/${name}`);
      const missing = statusOf(404, `${plural} "${name}" not found`);
      respond(response, object ? 200 : 404, object ?? missing);
    } else if (call.query.get("watch") === "true") {
      watch({ plural, accepts, response }, call.query);
    } else list(plural, accepts, call, response);
  }

  function change(call: FakeRequest, target: Target): { status: number; body: object } {
    const { plural, namespace = "", subresource } = target;
    const name = target.name ?? (call.body as FakeObject).metadata.name;
    const before = collection(plural).get(`${namespace}/${name}`);
    const result = written({ ...call, subresource }, before);
    if ("refused" in result) {
      const { refused: status } = result;
      return { status, body: statusOf(status, `${plural} "${name}": ${status}`) };
    }
    const { object } = result;
    if (object === undefined) fake.remove(plural, name, namespace);
    const isChanged = object !== undefined && !isDeepStrictEqual(object, before);
    return {
      status: 200,
      body: isChanged ? store(plural, object as FakeObject & KubeObject) : (object ?? {}),
    };
  }

  function store(plural: string, object: FakeObject): KubeObject {
    version += 1;
    const { name, namespace = "" } = object.metadata;
    const key = `${namespace}/${name}`;
    const before = collection(plural).get(key);
    made += 1;
    const metadata = {
      uid: before?.metadata.uid ?? `uid-${made}`,
      ...object.metadata,
      generation: generationAfter(before, object),
      resourceVersion: `${version}`,
      managedFields: [{ manager: "test" }, ...statusManagers(object)],
    };
    const stored = { ...object, metadata };
    collection(plural).set(key, stored);
    happen(plural, before === undefined ? "ADDED" : "MODIFIED", stored);
    return stored;
  }

  function list(
    plural: string,
    accepts: Watcher["accepts"],
    { query, accept = "" }: FakeRequest,
    response: ServerResponse,
  ): void {
    const start = Number(query.get("continue") ?? 0);
    const end = start + Number(query.get("limit") ?? Number.POSITIVE_INFINITY);
    const all = [...collection(plural).values()].filter(accepts);
    const more = end < all.length ? { continue: `${end}` } : {};
    const metadata = { resourceVersion: `${version}`, ...more };
    const page = all.slice(start, end);
    const isMetadataOnly = accept.includes("as=PartialObjectMetadataList");
    const items = isMetadataOnly ? page.map((object) => ({ metadata: object.metadata })) : page;
    respond(response, 200, { kind: "List", metadata, items });
  }

  function watch(watcher: Watcher, query: URLSearchParams): void {
    const { response, plural, accepts } = watcher;
    response.writeHead(200, { "content-type": "application/json" }).flushHeaders();
    const from = Number(query.get("resourceVersion"));
    if (from < oldest) {
      write(watcher, "ERROR", statusOf(410, `too old resource version: ${from}`));
      response.end();
      return;
    }
    for (const event of history) {
      const isMissed = event.version > from && event.plural === plural && accepts(event.object);
      if (isMissed) write(watcher, event.type, event.object);
    }
    watchers.add(watcher);
    response.on("close", () => watchers.delete(watcher));
  }

  const listen = async (port: number): Promise<void> => {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  };
  const close = async (): Promise<void> => {
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  };
  await listen(0);
  const { port } = server.address() as AddressInfo;

  const fake: FakeApiServer = {
    access: {
      server: new URL(`http://127.0.0.1:${port}`),
      requestOptions: async () => ({ headers: { authorization: "Bearer our-own-token" } }),
    },
    requests,
    intercept: undefined,
    delay: undefined,
    put: store,
    get: (plural, name, namespace = "") => collection(plural).get(`${namespace}/${name}`),
    remove(plural, name, namespace = "") {
      const key = `${namespace}/${name}`;
      const object = collection(plural).get(key);
      if (object === undefined) throw new Error(`there is no ${plural} ${key}`);
      version += 1;
      collection(plural).delete(key);
      const metadata = { ...object.metadata, resourceVersion: `${version}` };
      happen(plural, "DELETED", { ...object, metadata });
    },
    compact() {
      history = [];
      version += 1;
      oldest = version;
    },
    bookmark() {
      for (const watcher of watchers) {
        write(watcher, "BOOKMARK", { metadata: { resourceVersion: `${version}` } });
      }
    },
    endWatches() {
      for (const { response } of watchers) response.end();
      watchers.clear();
    },
    cut: () => server.closeAllConnections(),
    get watches() {
      return watchers.size;
    },
    get mostConnections() {
      return mostConnections;
    },
    goAway: close,
    comeBack: () => listen(port),
    async stop() {
      if (server.listening) await close();
    },
  };
  return fake;
}

async function readRequest(request: IncomingMessage): Promise<FakeRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  const url = new URL(request.url ?? "/", "http://fake");
  const body: unknown = text === "" ? undefined : JSON.parse(text);
  const { method = "", headers } = request;
  const { pathname: path, searchParams: query } = url;
  return { method, path, query, body, accept: headers.accept };
}

function respond(response: ServerResponse, status: number, body: unknown = {}): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
}

/** What the API server says of a failure. */
export const statusOf = (code: number, message: string): object => ({
  kind: "Status",
  status: "Failure",
  code,
  message,
});

const pathForm =
  /^(?:\/api\/v1|\/apis\/[^/]+\/[^/]+)(?:\/namespaces\/([^/]+))?\/([^/]+)(?:\/([^/]+))?(?:\/(status))?$/;

interface Target {
  readonly plural: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

function targetOf(path: string): Target | undefined {
  const match = pathForm.exec(path);
  if (match?.[2] === undefined) return undefined;
  return { namespace: match[1], plural: match[2], name: match[3], subresource: match[4] };
}

function selection(
  namespace: string | undefined,
  query: URLSearchParams,
): (object: KubeObject) => boolean {
  const selector = query.get("labelSelector");
  const [key = "", value] = selector?.split("=") ?? [];
  const name = query.get("fieldSelector")?.replace("metadata.name=", "");
  return ({ metadata }) => {
    const { labels = {} } = metadata as { labels?: Record<string, string> };
    const isSelected = selector === null || labels[key] === value;
    const isNamed = name === undefined || metadata.name === name;
    return isSelected && isNamed && (namespace === undefined || metadata.namespace === namespace);
  };
}
