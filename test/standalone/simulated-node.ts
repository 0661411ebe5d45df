import { generateKeyPairSync } from "node:crypto";
import type { Result, VerifyToken } from "../../src/connector/platform.ts";
import { createTokenSigner, createTokenVerifier } from "../../src/standalone/tokens.ts";
import {
  type MountTerms,
  startVolumeKeeper,
  type VolumeKeeper,
} from "../../src/standalone/volume-keeper.ts";
import type { VolumeLife } from "../../src/standalone/volume-life.ts";
import {
  createVolumeRecordStore,
  type EndedVolume,
  type RecordedRequest,
  type UnpublishRequest,
  type VolumeRecordStore,
} from "../../src/standalone/volume-records.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";

/** A request with a part that the keeper doesn't know. */
export interface Request extends RecordedRequest {
  readonly readonly: boolean;
}

export const requestFor = (
  volumeId: string,
  attributes: Readonly<Record<string, string>> = { connectors: "harbor" },
): Request => ({
  volumeId,
  targetPath: `/target/${volumeId}`,
  volumeContext: attributes,
  secrets: {},
  readonly: true,
});

/** A machine whose kernel keeps mounts while processes come and go on it. */
export interface SimulatedNode {
  /** The token in each mounted volume, by target path. */
  readonly mounts: Map<string, string>;
  /** Folders with files in them. */
  readonly files: Set<string>;
  /** The start of each process that runs. */
  readonly processes: Map<number, number>;
  /** The user whom the operator allows nothing. */
  forbidden: number | undefined;
  /** The id of the boot; a test that changes it empties `mounts`, too. */
  boot: string;
  /** Every call of the csi role that was begun: `publish v1`. */
  readonly calls: string[];
  readonly published: Request[];
  readonly log: RecordedLog;
  /** Milliseconds. */
  time: number;
  /** What the csi role does before it does its work; a failed publish of a mounted volume keeps it. */
  before: (call: string) => Promise<void> | void;
  /** What it does after its work. */
  after: (call: string) => Promise<void> | void;
  /** Counts down with each effect on the world; at zero the running process dies. */
  life: number;
  /** Settles when it has died. */
  readonly death: Promise<void>;
  start(): Promise<RunningKeeper>;
}

/** A keeper whose callers are root unless a test says otherwise. */
export interface RunningKeeper
  extends Omit<VolumeKeeper<Request>, "publish" | "mount" | "unpublish"> {
  publish(request: Request, signal?: AbortSignal): Promise<Result<void>>;
  mount(request: Request, terms?: Partial<MountTerms>, uid?: number): Promise<Result<VolumeLife>>;
  unpublish(request: UnpublishRequest, uid?: number): Promise<Result<EndedVolume>>;
  readonly verify: VerifyToken;
  /** A second passes; settles when all that is due has been done, unless a call hangs. */
  tick(): Promise<void>;
}

export const tokenLifetimeSeconds = 3600;

const root = { uid: 0 };
const noTerms: MountTerms = { isPersistent: false, replaces: false, hidesFiles: false };

export function simulatedNode(recordsFolder: string): SimulatedNode {
  const { privateKey: key } = generateKeyPairSync("ed25519");
  const records = createVolumeRecordStore<Request>(recordsFolder);
  const { promise: death, resolve: die } = Promise.withResolvers<void>();
  let ids = 0;

  const node: SimulatedNode = {
    mounts: new Map(),
    files: new Set(),
    processes: new Map(),
    forbidden: undefined,
    boot: "boot-1",
    calls: [],
    published: [],
    log: recordedLog(),
    time: Date.parse("2026-01-01T00:00:00Z"),
    before: () => {},
    after: () => {},
    life: Number.POSITIVE_INFINITY,
    death,
    start,
  };

  async function start(): Promise<RunningKeeper> {
    let isAlive = true;
    let tasks: (() => void)[] = [];
    /** Does something to the world, unless the process dies just before it or just after it. */
    const effect = async <T>(act: () => Promise<T> | T): Promise<T> => {
      const never = new Promise<never>(() => {});
      const dies = (): boolean => {
        if (--node.life > 0) return !isAlive;
        isAlive = false;
        die();
        return true;
      };
      if (dies()) return never;
      const result = await act();
      return dies() ? never : result;
    };
    const dying: VolumeRecordStore<Request> = {
      load: () => records.load(),
      save: (record) => effect(() => records.save(record)),
      remove: (volumeId) => effect(() => records.remove(volumeId)),
    };
    const now = (): number => node.time;
    const options = { key, audience: "connectors-proxy", now };
    const publish = (request: Request): Promise<void> =>
      effect(async () => {
        node.calls.push(`publish ${request.volumeId}`);
        await node.before(`publish ${request.volumeId}`);
        node.published.push(request);
        node.mounts.set(request.targetPath, tokenIn(request));
        await node.after(`publish ${request.volumeId}`);
      });
    const keeper = await startVolumeKeeper<Request>({
      publish,
      async refresh(request) {
        if (!node.mounts.has(request.targetPath)) return false;
        await publish(request);
        return true;
      },
      end: ({ volumeId, targetPath }) =>
        effect(async () => {
          node.calls.push(`unpublish ${volumeId}`);
          await node.before(`unpublish ${volumeId}`);
          return { wasMounted: node.mounts.delete(targetPath), isStillUsed: false };
        }),
      show: async () => undefined,
      hide: async () => undefined,
      allows: ({ uid }) => uid !== node.forbidden,
      mountPoints: async () => new Set(node.mounts.keys()),
      hasFiles: async (path) => node.files.has(path),
      bootId: async () => node.boot,
      processStart: async (pid) => node.processes.get(pid),
      resolveTarget: async (path) => path.replace("/link/", "/target/"),
      records: dying,
      signToken: createTokenSigner({ ...options, newTokenId: () => `jti-${++ids}` }),
      audience: options.audience,
      tokenLifetimeSeconds,
      now,
      createMountId: () => `mount-${++ids}`,
      every: (_ms, task) => {
        tasks.push(task);
        return () => {
          tasks = tasks.filter((other) => other !== task);
        };
      },
      log: node.log.log,
    });
    return {
      ...keeper,
      publish: (request, signal) => keeper.publish(root, request, signal),
      mount: (request, terms, uid = 0) => keeper.mount({ uid }, request, { ...noTerms, ...terms }),
      unpublish: (request, uid = 0) => keeper.unpublish({ uid }, request),
      verify: createTokenVerifier({ ...options, admits: keeper.admits }),
      async tick() {
        node.time += 1000;
        for (const task of tasks) task();
        // Everything here is done by files and signatures, whose number of turns is not known.
        await new Promise((resolve) => setTimeout(resolve, 20));
      },
    };
  }
  return node;
}

export function tokenIn({ secrets }: RecordedRequest): string {
  const tokens: unknown = JSON.parse(secrets["csi.storage.k8s.io/serviceAccount.tokens"] ?? "{}");
  const entry = (tokens as Record<string, { token?: string }>)["connectors-proxy"];
  return entry?.token ?? "none";
}
