import { X509Certificate } from "node:crypto";
import { type ProxyKeys, trustedBundle } from "../connector/proxy-keys.ts";

/** The certificates that clients trust, as the ConfigMap has them. */
export interface PublishedBundle {
  readonly bundle: string;
  /** Since when the ConfigMap has them, in milliseconds since 1970. */
  readonly since: number;
}

/** What a plan follows from. */
export interface RotationState {
  readonly keys: ProxyKeys;
  /** Undefined where there is no ConfigMap, or where it does not say since when it has its content. */
  readonly published: PublishedBundle | undefined;
  /** The annotation by which a person asks for a rotation: one is due where it differs from `rotated`. */
  readonly rotate: string | undefined;
  /** The annotation as it was when the last rotation was begun. */
  readonly rotated: string | undefined;
}

/** The times of a rotation, in milliseconds. */
export interface RotationTiming {
  /** How long each step waits for the previous one to reach all volumes and proxies. */
  readonly overlapMs: number;
  /** A new authority is made once the current one is valid for less than this. */
  readonly renewBeforeMs: number;
}

const dayMs = 24 * 60 * 60_000;
export const defaultRotationTiming: RotationTiming = {
  overlapMs: dayMs,
  renewBeforeMs: 365 * dayMs,
};

/**
 * The next step of a rotation:
 * - publish: the ConfigMap gets the certificates of the Secret
 * - introduce: new keys are created, which everybody comes to trust and nobody uses yet
 * - promote: the new keys are used, the previous ones are still trusted
 * - retire: the previous keys are removed
 * - wait: nothing is to be done before `until`, in milliseconds since 1970
 */
export type RotationStep =
  | { readonly step: "publish" | "introduce" | "promote" | "retire" }
  | { readonly step: "wait"; readonly until: number };

/**
 * Plans the next step of a rotation. It follows from the Secret and the ConfigMap alone, so it does not matter which
 * replica took the last step, and whether it completed it: each step changes the Secret, then the bundle has to be
 * published, and the overlap counts from then on.
 * @param now in milliseconds since 1970
 */
export function planRotation(
  { keys, published, rotate, rotated }: RotationState,
  { overlapMs, renewBeforeMs }: RotationTiming,
  now: number,
): RotationStep {
  if (published?.bundle !== trustedBundle(keys)) return { step: "publish" };
  const settledAt = published.since + overlapMs;
  if (keys.next !== undefined || keys.previous !== undefined) {
    if (now < settledAt) return { step: "wait", until: settledAt };
    return { step: keys.previous === undefined ? "promote" : "retire" };
  }
  const renewAt =
    Date.parse(new X509Certificate(keys.authority.certificate).validTo) - renewBeforeMs;
  const isAskedFor = rotate !== undefined && rotate !== rotated;
  return isAskedFor || now >= renewAt ? { step: "introduce" } : { step: "wait", until: renewAt };
}

/** The keys after a step. @param created new keys, for the step that introduces them */
export function keysAfter(
  step: "introduce" | "promote" | "retire",
  keys: ProxyKeys,
  created: Pick<ProxyKeys, "authority" | "sealKey">,
): ProxyKeys {
  switch (step) {
    case "introduce":
      return { ...keys, next: created };
    case "promote": {
      const previous = { certificate: keys.authority.certificate, sealKey: keys.sealKey };
      return { ...(keys.next ?? created), next: undefined, previous };
    }
    case "retire":
      return { ...keys, previous: undefined };
  }
}
