import { generateKeyPairSync } from "node:crypto";
import type { VerifyToken } from "../../src/connector/platform.ts";
import { createTokenSigner, createTokenVerifier } from "../../src/standalone/tokens.ts";
import { startVolumeKeeper, type VolumeKeeper } from "../../src/standalone/volume-keeper.ts";
import {
  createVolumeRecordStore,
  type RecordedRequest,
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

export interface RunningKeeper extends VolumeKeeper<Request> {
  readonly verify: VerifyToken;
  /** A second passes; settles when all that is due has been done, unless a call hangs. */
  tick(): Promise<void>;
}

export const tokenLifetimeSeconds = 3600;

export function simulatedNode(recordsFolder: string): SimulatedNode {
  const { privateKey: key } = generateKeyPairSync("ed25519");
  const records = createVolumeRecordStore<Request>(recordsFolder);
  const { promise: death, resolve: die } = Promise.withResolvers<void>();
  let ids = 0;

  const node: SimulatedNode = {
    mounts: new Map(),
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
    const keeper = await startVolumeKeeper<Request>({
      publish: (request) =>
        effect(async () => {
          node.calls.push(`publish ${request.volumeId}`);
          await node.before(`publish ${request.volumeId}`);
          node.published.push(request);
          node.mounts.set(request.targetPath, tokenIn(request));
          await node.after(`publish ${request.volumeId}`);
        }),
      unpublish: ({ volumeId, targetPath }) =>
        effect(async () => {
          node.calls.push(`unpublish ${volumeId}`);
          await node.before(`unpublish ${volumeId}`);
          node.mounts.delete(targetPath);
        }),
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
      verify: createTokenVerifier({ ...options, isMounted: keeper.isMounted }),
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
