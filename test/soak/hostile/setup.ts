import type { Stoppable } from "../../support/cleanup.ts";
import type { Attack } from "./attacks.ts";
import type { Question } from "./neighbour-process.ts";

/** A program that is attacked. */
export interface Attacked {
  readonly name: string;
  readonly pid: number;
  /** The limit of its container. */
  readonly limitMebibytes: number;
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
  /** Makes a new Connector of the neighbour, and waits until it can be used. Undefined where nothing has to follow. */
  readonly makeConnector: (() => Promise<void>) | undefined;
}

/** The path of a connector's repositories. */
export const basePath = (namespace: string, name: string): string =>
  `/v2/namespaces/${namespace}/connectors/${name}`;
