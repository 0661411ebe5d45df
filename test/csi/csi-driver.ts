/** A driver behind its real socket, with real mounts, in surroundings that a test can change. */
import { execFileSync } from "node:child_process";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials, type ServiceError, status } from "@grpc/grpc-js";
import { expect } from "chai";
import { parseConnector } from "../../src/connector/connector.ts";
import type { ConnectorRef } from "../../src/connector/connector-ref.ts";
import type { FoundConnector } from "../../src/connector/platform.ts";
import { serviceHosts } from "../../src/connector/proxy-address.ts";
import type { NodeClient } from "../../src/csi/generated/csi/v1/Node.ts";
import type { NodePublishVolumeRequest } from "../../src/csi/generated/csi/v1/NodePublishVolumeRequest.ts";
import { csi } from "../../src/csi/proto.ts";
import { serveCsi } from "../../src/csi/server.ts";
import type { SocketServer } from "../../src/csi/socket-server.ts";
import { systemMounts } from "../../src/csi/volume-mounts.ts";
import { createVolumeNode, type VolumeNodeOptions } from "../../src/csi/volume-node.ts";
import { createLog } from "../../src/log.ts";

export const audience = "connectors-proxy";
/** What every token of these tests begins with, and so what no log and no error may contain. */
export const tokenMark = "eyJ-a-secret";

/** A folder for targets and a socket, that others may pass through. */
export async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "csi-"));
  await chmod(folder, 0o755);
  return folder;
}

/** Unmounts all that is in a folder, and removes it. */
export async function removeFolder(folder: string): Promise<void> {
  for (const point of (await mountPoints()).filter((path) => path.startsWith(`${folder}/`))) {
    execFileSync("umount", ["--lazy", point]);
  }
  await rm(folder, { recursive: true, force: true });
}

/** @throws Error where this process can't mount: these tests mean nothing without it */
export async function requireMounts(): Promise<void> {
  const folder = await makeFolder();
  try {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", folder], { stdio: "pipe" });
    execFileSync("umount", [folder], { stdio: "pipe" });
  } catch (cause) {
    throw new Error(
      "These tests mount: run them as root, within `unshare --mount --propagation private`.",
      { cause },
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Skips a test that needs further users and groups, where a user namespace has none. */
export async function requireOtherUsers(test: Mocha.Context): Promise<void> {
  const [, , count] = (await readFile("/proc/self/uid_map", "utf8")).trim().split(/\s+/);
  if (Number(count) <= 65534) test.skip();
}

const mountLines = async (): Promise<string[][]> =>
  (await readFile("/proc/self/mountinfo", "utf8")).split("\n").map((line) => line.split(" "));

/** Of paths without any sign that the kernel escapes. */
const mountPoints = async (): Promise<string[]> =>
  (await mountLines()).map((fields) => fields[4] ?? "");

/** The ids of the mounts at a path. */
export const mountIdsAt = async (path: string): Promise<string[]> =>
  (await mountLines()).filter((fields) => fields[4] === path).map((fields) => fields[0] ?? "");

/** The options of a mount and of its file system, as one list. */
export const mountOptionsAt = async (path: string): Promise<string[]> =>
  (await mountLines())
    .filter((fields) => fields[4] === path)
    .flatMap((fields) => [fields[5], fields.at(-1)])
    .flatMap((options) => options?.split(",") ?? []);

export const foundConnector = ({ namespace, name }: ConnectorRef): FoundConnector => {
  const parsed = parseConnector({
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { namespace, name },
    spec: { connectorClassName: "oci", address: `https://${name}.example.com` },
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems));
  return { state: "found", connector: parsed.value };
};

export const tokensJson = (token: string, expiresAt: Date): string =>
  JSON.stringify({ [audience]: { token, expirationTimestamp: expiresAt.toISOString() } });

export const start: Date = new Date("2026-01-01T00:00:00Z");
export const hour: number = 60 * 60 * 1000;
export const tokenExpiry: Date = new Date(start.getTime() + hour);

/** What the kubelet sends; all parts of it can be replaced. */
export function publishRequest(
  targetPath: string,
  {
    token = `${tokenMark}-1`,
    attributes = { connectors: "harbor" },
    mount = {},
    ...others
  }: Partial<NodePublishVolumeRequest> & {
    token?: string;
    attributes?: Record<string, string>;
    mount?: { fsType?: string; mountFlags?: string[]; volumeMountGroup?: string };
  } = {},
): NodePublishVolumeRequest {
  return {
    volumeId: `csi-of-${targetPath}`,
    targetPath,
    readonly: true,
    volumeCapability: { mount, accessMode: { mode: "SINGLE_NODE_WRITER" } },
    secrets: { "csi.storage.k8s.io/serviceAccount.tokens": tokensJson(token, tokenExpiry) },
    volumeContext: { ...attributes, ...podInfo },
    ...others,
  };
}

export const podInfo: Record<string, string> = {
  "csi.storage.k8s.io/ephemeral": "true",
  "csi.storage.k8s.io/pod.namespace": "team-a",
  "csi.storage.k8s.io/pod.name": "build-1",
  "csi.storage.k8s.io/serviceAccount.name": "builder",
};

type Surroundings = Pick<VolumeNodeOptions, "findConnector" | "mayUse" | "caCertificate" | "now">;

export interface Driver {
  readonly folder: string;
  readonly socketPath: string;
  readonly client: NodeClient;
  /** What the driver asks, to be changed while it runs. */
  readonly world: { -readonly [Key in keyof Surroundings]: Surroundings[Key] };
  /** Each line of the log, and each error that was sent. */
  readonly said: string[];
  readonly logged: (message: string) => Record<string, string>[];
  readonly publish: (request: NodePublishVolumeRequest) => Promise<unknown>;
  readonly unpublish: (targetPath: string, volumeId?: string) => Promise<unknown>;
  /** The error that a call ends with. */
  readonly failure: (call: Promise<unknown>) => Promise<{ code: string; details: string }>;
  /** Stops the driver, removes all that it mounted, and looks for tokens in all that it said. */
  readonly end: () => Promise<void>;
}

export async function startDriver(changes: Partial<VolumeNodeOptions> = {}): Promise<Driver> {
  const folder = await makeFolder();
  const socketPath = join(folder, "csi.sock");
  const said: string[] = [];
  const log = createLog((line) => said.push(line), Date.now);
  const world: Surroundings = {
    findConnector: async (ref) => foundConnector(ref),
    mayUse: async () => ({ ok: true, value: undefined }),
    caCertificate: () => "a certificate\n",
    now: () => start.getTime(),
  };
  const node = createVolumeNode({
    audience,
    proxyHostsOf: serviceHosts("cluster.local"),
    noProxy: ["localhost"],
    toolsSeeTargetPath: false,
    mounts: systemMounts,
    log,
    findConnector: (ref) => world.findConnector(ref),
    mayUse: (...question) => world.mayUse(...question),
    caCertificate: () => world.caCertificate(),
    rootCertificates: () => "roots\n",
    now: () => world.now(),
    ...changes,
  });
  const server: SocketServer = await serveCsi({
    socketPath,
    node,
    nodeId: "node-1",
    version: "1.2.3",
    isReady: () => true,
    graceMs: 5_000,
    log,
  });
  const client = new csi.Node(`unix:${socketPath}`, credentials.createInsecure());
  return {
    folder,
    socketPath,
    client,
    world,
    said,
    logged: (message) =>
      said
        .filter((line) => line.startsWith("{"))
        .map((line): Record<string, string> => JSON.parse(line))
        .filter((line) => line.message === message),
    publish: (request) => invoke((done) => client.nodePublishVolume(request, done)),
    unpublish: (targetPath, volumeId = `csi-of-${targetPath}`) =>
      invoke((done) => client.nodeUnpublishVolume({ volumeId, targetPath }, done)),
    async failure(call) {
      const error: ServiceError = await call.then(
        () => expect.fail("the call succeeded"),
        (reason) => reason,
      );
      said.push(`${error.message} ${error.details} ${error.stack}`);
      return { code: status[error.code] ?? "", details: error.details };
    },
    async end() {
      client.close();
      await server.stop();
      await removeFolder(folder);
      expect(said.filter((line) => line.includes(tokenMark))).to.deep.equal([]);
    },
  };
}

/** Calls a method of a client: `invoke((done) => client.probe({}, done))`. */
export const invoke = <Response>(
  start: (done: UnaryCallback<Response>) => unknown,
): Promise<Response> =>
  new Promise((resolve, reject) => {
    start((error, response) => (error === null ? resolve(response as Response) : reject(error)));
  });

type UnaryCallback<Response> = (error: ServiceError | null, response?: Response) => void;
