import type { Stoppable } from "../../support/cleanup.ts";
import type { RunningProgram } from "../../support/program.ts";
import type { Attack } from "./attacks.ts";
import type { Question } from "./neighbour-process.ts";

/** A program that is attacked. */
export interface Attacked {
  readonly name: string;
  readonly pid: number;
  /** The limit of its container. */
  readonly limitMebibytes: number;
  /** What lives in its memory after a collection, in MiB. */
  liveMebibytes(): Promise<number>;
}

/** What lets a program say what lives in its memory: Node's flag for it. */
export const liveMemoryArgument: string = `--import=${new URL("live-memory.ts", import.meta.url).href}`;

/** A program that is attacked, which runs with {@link liveMemoryArgument}. */
export function createAttacked(
  name: string,
  limitMebibytes: number,
  program: RunningProgram,
): Attacked {
  let questions = 0;
  return {
    name,
    pid: program.pid,
    limitMebibytes,
    async liveMebibytes() {
      questions += 1;
      program.signal("SIGUSR2");
      const answer = new RegExp(`^live memory ${questions}: (\\d+)$`, "m");
      const [, bytes] = await program.waitFor(answer, 60_000);
      return Number(bytes) / 1024 / 1024;
    },
  };
}

/** A proxy as real processes, with two tenants: one who attacks, in team-a, and the neighbour, in team-b. */
export interface Setup extends Stoppable {
  readonly attacked: readonly Attacked[];
  readonly neighbour: Question;
  readonly attacker: Pick<Question, "host" | "token" | "base"> & {
    /** The API server, by plain HTTP, where there is one. */
    readonly api: string | undefined;
  };
  /** Lets the attacker's connector lead to the attacker's registry. It may take a moment. */
  lead(registry: string, params: Attack["params"]): Promise<void>;
  /** Takes away what an attack has left that its tenant would have to pay for. */
  clear(): Promise<void>;
  /** Has the API server publish the keys of its tokens, and waits until the proxy has them. Undefined where there is none. */
  readonly publishKeys: (() => Promise<void>) | undefined;
  /**
   * Starts each role anew.
   * @returns how long each took until it was ready, in milliseconds, by its name
   * @throws Error where one is not ready within a minute
   */
  readonly restartRoles: (() => Promise<ReadonlyMap<string, number>>) | undefined;
  /** Makes a new Connector of the neighbour, and waits until it can be used. Undefined where nothing has to follow. */
  readonly makeConnector: (() => Promise<void>) | undefined;
}

/** The path of a connector's repositories. */
export const basePath = (namespace: string, name: string): string =>
  `/v2/namespaces/${namespace}/connectors/${name}`;
