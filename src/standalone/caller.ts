import type { Result } from "../connector/platform.ts";
import { show } from "../connector/problem.ts";
import type { RecordedRequest, VolumeRecord } from "./volume-records.ts";

/** Who asks for something. The socket on which a request comes proves it, and no request says it. */
export interface Caller {
  /** The number of the user. */
  readonly uid: number;
}

type Refusal = Extract<Result<never>, { readonly ok: false }>;
type OwnedVolume = Pick<VolumeRecord<RecordedRequest>, "request" | "origin">;

/** A volume without an owner is root's: it was mounted when nobody else could. */
const ownerOf = ({ origin }: OwnedVolume): number => origin?.uid ?? 0;

/** Whether a caller may see, change and end a volume: root every one, everybody else their own. */
export const mayChange = ({ uid }: Caller, volume: OwnedVolume): boolean =>
  uid === 0 || uid === ownerOf(volume);

/** The refusal for a caller who may not change a volume. */
export const refuseForeign = ({ uid }: Caller, volume: OwnedVolume): Refusal => ({
  ok: false,
  reason: `the volume at ${show(volume.request.targetPath)} belongs to user ${ownerOf(volume)}, and user ${uid} may not change it`,
});

/** The refusal of connectors that a caller may not name. It is the same whether or not there are any of these names. */
export const refuseConnectors = ({ uid }: Caller, connectors: readonly string[]): Refusal => ({
  ok: false,
  reason: `of the connectors ${connectors.map(show).join(", ")}, user ${uid} may not name every one, or there are not all of them: the operator says by --allow of "oci-connector standalone" who may use which`,
});
