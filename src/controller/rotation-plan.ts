import { X509Certificate } from "node:crypto";
import { type ProxyKeys, trustedBundle } from "../connector/proxy-keys.ts";

/** What the ConfigMap says: the certificates that clients trust. */
export interface PublishedBundle {
  readonly bundle: string;
  /** Since when, in milliseconds since the epoch. */
  readonly since: number;
}

export interface RotationState {
  readonly keys: ProxyKeys;
  /** Undefined where there is none, or where it does not say since when. */
  readonly published: PublishedBundle | undefined;
  /** What a person has asked for, and what was last done: a rotation is due where they differ. */
  readonly rotate: string | undefined;
  readonly rotated: string | undefined;
}

/** All in milliseconds. */
export interface RotationTiming {
  /** How long each step waits for the one before to reach all volumes and proxies. */
  readonly overlap: number;
  /** How much of an authority's life has to be left; with less a new one is made. */
  readonly renewBefore: number;
}

const day = 24 * 60 * 60_000;
export const defaultRotationTiming: RotationTiming = { overlap: day, renewBefore: 365 * day };

/**
 * - publish: the ConfigMap has to say what the Secret says
 * - introduce: new keys are made, which everybody comes to know and nobody uses yet
 * - promote: the new keys are used, those before are still trusted
 * - retire: those before are forgotten
 * - wait: until then nothing is to be done
 */
export type RotationStep =
  | { readonly step: "publish" | "introduce" | "promote" | "retire" }
  | { readonly step: "wait"; readonly until: number };

/**
 * The next step of a rotation. It follows from what the Secret and the ConfigMap say, so it doesn't
 * matter who took the last step, and whether they came to its end: each step changes the Secret, then
 * the bundle has to be published, and only from then on time counts.
 */
export function planRotation(
  { keys, published, rotate, rotated }: RotationState,
  { overlap, renewBefore }: RotationTiming,
  now: number,
): RotationStep {
  if (published?.bundle !== trustedBundle(keys)) return { step: "publish" };
  const settled = published.since + overlap;
  if (keys.next !== undefined || keys.previous !== undefined) {
    if (now < settled) return { step: "wait", until: settled };
    return { step: keys.previous === undefined ? "promote" : "retire" };
  }
  const renewAt = Date.parse(new X509Certificate(keys.authority.certificate).validTo) - renewBefore;
  const isAskedFor = rotate !== undefined && rotate !== rotated;
  return isAskedFor || now >= renewAt ? { step: "introduce" } : { step: "wait", until: renewAt };
}

/** The keys after a step. @param made new keys, for the step that needs them */
export function keysAfter(
  step: "introduce" | "promote" | "retire",
  keys: ProxyKeys,
  made: Pick<ProxyKeys, "authority" | "sealKey">,
): ProxyKeys {
  switch (step) {
    case "introduce":
      return { ...keys, next: made };
    case "promote": {
      const previous = { certificate: keys.authority.certificate, sealKey: keys.sealKey };
      return { ...(keys.next ?? made), next: undefined, previous };
    }
    case "retire":
      return { ...keys, previous: undefined };
  }
}
