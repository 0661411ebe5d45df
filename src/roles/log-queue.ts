/**
 * The lines of the log that wait to be written: bounded in bytes, and fair. A stranger's lines have a small share of
 * their own, and so never take the place of a tenant's; no tenant's lines take the place of another's.
 */
import type { LineIdentity, LineOrigin } from "../log.ts";
import type { DroppedLines } from "../metrics/metrics.ts";

/** The bounds of the log. docs/audit-log.md and docs/robustness.md name them, too. */
export const logBounds = {
  /** How many lines requests without an identity may have in a second, for as long as they like. */
  strangerLinesPerSecond: 50,
  /** How many lines requests without an identity may have at once. */
  strangerBurstLines: 200,
  /** How many lines a subject may have in a second, for as long as it likes. */
  subjectLinesPerSecond: 1_000,
  /** How many lines a subject may have at once. */
  subjectBurstLines: 5_000,
  /** Bytes of the process's own lines that may wait: 2 MiB. */
  processBytes: 2_097_152,
  /** Bytes of lines of requests without an identity that may wait: 256 KiB. */
  strangerBytes: 262_144,
  /** Bytes of lines of all subjects that may wait: 12 MiB. Each may take a part of what is free. */
  subjectBytes: 12_582_912,
  /** Subjects that are told apart; those that come beyond share one place. */
  maxSubjects: 1_024,
  /** What a waiting line takes of its bound besides its text. */
  lineOverheadBytes: 64,
} as const;

/** Who causes a line: this process itself, a request without an identity, or one with an identity. */
type LineSource = DroppedLines["source"];

/** Why a line was left out: its source had too many in a short time, or too many of its lines waited. */
type DropReason = DroppedLines["reason"];

/** Lines of one source that were left out one after the other. */
export interface Gap {
  readonly source: LineSource;
  /** Whose lines they were; undefined for other sources than subjects, and for subjects beyond the bound. */
  readonly identity: LineIdentity | undefined;
  readonly reason: DropReason;
  readonly count: number;
  /** Milliseconds from the first of them to the last one. */
  readonly durationMs: number;
}

export interface LogQueueOptions {
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicMs: () => number;
  /** Makes the line that says of a gap what it was, with its line feed. */
  readonly describeGap: (gap: Gap) => string;
}

/** Lines that wait, in the order in which they came. */
export interface LogQueue {
  /** Takes a line with its line feed, or leaves it out and counts it. */
  add(line: string, origin: LineOrigin | undefined): void;
  /** Removes whole lines from the front. @returns as many as fit into so many bytes, one at least; none where none waits */
  take(maxBytes: number): string;
  /**
   * Adds the line of each gap whose source may have lines again.
   * @param all whether the gaps of the others end as well
   */
  endGaps(all: boolean): void;
  /** Whether there are gaps that have no line yet. */
  hasGaps(): boolean;
  /** Bytes that wait, with what each line takes besides its text. */
  bytes(): number;
  /** All reasons, also those for which no line was left out. */
  droppedLines(): readonly DroppedLines[];
}

/** A source's share. It closes when the source has too much, and opens again when half of that is gone: so a gap has one line. */
interface Share {
  readonly source: LineSource;
  readonly identity: LineIdentity | undefined;
  /** What subjects share a share with: see {@link tenantOf}. */
  readonly tenant: string;
  readonly rate: Rate | undefined;
  bytes: number;
  gap: OpenGap | undefined;
}

interface OpenGap {
  readonly reason: DropReason;
  readonly firstMs: number;
  lastMs: number;
  count: number;
}

interface WaitingLine {
  readonly text: string;
  readonly textBytes: number;
  readonly share: Share;
}

/** Creates a queue without lines, within {@link logBounds}. */
export function createLogQueue({ monotonicMs, describeGap }: LogQueueOptions): LogQueue {
  const lines = createFifo<WaitingLine>();
  const tenantBytes = new Map<string, number>();
  let bytes = 0;
  let subjectBytes = 0;

  const strangerRate = createRate(logBounds.strangerLinesPerSecond, logBounds.strangerBurstLines);
  const processShare = createShare("process");
  const strangerShare = createShare("stranger", strangerRate);
  const subjects = createSubjectShares(monotonicMs);
  const closed = new Set<Share>();
  const counts = new Map(
    droppedKinds.map(([source, reason]) => [`${source} ${reason}`, { source, reason, count: 0 }]),
  );

  const shareOf = (origin: LineOrigin | undefined): Share => {
    if (origin === undefined) return processShare;
    return origin === "stranger" ? strangerShare : subjects.of(origin);
  };

  /** The bytes that a share may have, as things are. Nobody takes all: whoever comes next finds a part of the rest. */
  const roomOf = ({ source, tenant }: Share): number => {
    if (source === "process") return logBounds.processBytes;
    if (source === "stranger") return logBounds.strangerBytes;
    return logBounds.subjectBytes - subjectBytes - (tenantBytes.get(tenant) ?? 0);
  };

  const count = (share: Share, change: number): void => {
    bytes += change;
    share.bytes += change;
    if (share.source !== "subject") return;
    subjectBytes += change;
    const ofTenant = (tenantBytes.get(share.tenant) ?? 0) + change;
    if (ofTenant === 0) tenantBytes.delete(share.tenant);
    else tenantBytes.set(share.tenant, ofTenant);
  };

  const push = (text: string, textBytes: number, share: Share): void => {
    lines.push({ text, textBytes, share });
    count(share, textBytes + logBounds.lineOverheadBytes);
  };

  const drop = (share: Share, reason: DropReason): void => {
    const now = monotonicMs();
    share.gap ??= { reason, firstMs: now, lastMs: now, count: 0 };
    share.gap.lastMs = now;
    share.gap.count += 1;
    closed.add(share);
    const counted = counts.get(`${share.source} ${share.gap.reason}`);
    if (counted !== undefined) counted.count += 1;
  };

  const endGap = (share: Share): void => {
    const { gap, source, identity } = share;
    if (gap === undefined) return;
    share.gap = undefined;
    closed.delete(share);
    const durationMs = Math.round(gap.lastMs - gap.firstMs);
    const line = describeGap({
      source,
      identity,
      reason: gap.reason,
      count: gap.count,
      durationMs,
    });
    push(line, Buffer.byteLength(line), share);
  };

  const mayOpen = (share: Share): boolean =>
    share.bytes <= roomOf(share) / 2 && (share.rate?.isHalfFull(monotonicMs()) ?? true);

  return {
    add(line, origin) {
      const share = shareOf(origin);
      if (share.gap !== undefined) {
        if (!mayOpen(share)) {
          drop(share, share.gap.reason);
          return;
        }
        endGap(share);
      }
      const textBytes = Buffer.byteLength(line);
      if (share.bytes + textBytes + logBounds.lineOverheadBytes > roomOf(share)) {
        drop(share, "queue");
      } else if (share.rate?.take(monotonicMs()) === false) {
        drop(share, "rate");
      } else {
        push(line, textBytes, share);
      }
    },
    take(maxBytes) {
      let text = "";
      let textBytes = 0;
      for (;;) {
        const next = lines.first();
        if (next === undefined || (text !== "" && textBytes + next.textBytes > maxBytes)) break;
        lines.shift();
        count(next.share, -(next.textBytes + logBounds.lineOverheadBytes));
        text += next.text;
        textBytes += next.textBytes;
      }
      return text;
    },
    endGaps(all) {
      for (const share of [...closed]) if (all || mayOpen(share)) endGap(share);
    },
    hasGaps: () => closed.size > 0,
    bytes: () => bytes,
    droppedLines: () => [...counts.values()].map((counted) => ({ ...counted })),
  };
}

const droppedKinds: readonly (readonly [LineSource, DropReason])[] = [
  ["process", "queue"],
  ["stranger", "rate"],
  ["stranger", "queue"],
  ["subject", "rate"],
  ["subject", "queue"],
];

const createShare = (
  source: LineSource,
  rate?: Rate,
  identity?: LineIdentity,
  tenant = "",
): Share => ({
  source,
  identity,
  tenant,
  rate,
  bytes: 0,
  gap: undefined,
});

/** The shares of the subjects. One that has no lines and has had none of late is forgotten when its place is needed. */
function createSubjectShares(monotonicMs: () => number): { of(identity: LineIdentity): Share } {
  const newRate = (): Rate =>
    createRate(logBounds.subjectLinesPerSecond, logBounds.subjectBurstLines);
  /** By hand and no cache: what is in use must not go, however long ago it was used. */
  const shares = new Map<string, Share>();
  const others = createShare("subject", newRate());
  const minPauseMs = 1_000;
  let sweptAtMs = Number.NEGATIVE_INFINITY;
  const sweep = (): void => {
    const now = monotonicMs();
    if (now - sweptAtMs < minPauseMs) return;
    sweptAtMs = now;
    for (const [subject, { bytes, gap, rate }] of shares) {
      if (bytes === 0 && gap === undefined && rate?.isFull(now) !== false) shares.delete(subject);
    }
  };
  return {
    of(identity) {
      const { subject, user, pod } = identity;
      const known = shares.get(subject);
      if (known !== undefined) return known;
      if (shares.size >= logBounds.maxSubjects) sweep();
      if (shares.size >= logBounds.maxSubjects) return others;
      const kept = { subject, user, ...(pod && { pod }) };
      const share = createShare("subject", newRate(), kept, tenantOf(identity));
      shares.set(subject, share);
      return share;
    },
  };
}

/** The namespace of a Pod or a ServiceAccount; anybody else is a tenant of its own. */
function tenantOf({ subject, user, pod }: LineIdentity): string {
  const namespace = pod?.namespace ?? /^system:serviceaccount:([^:]+):/.exec(user)?.[1];
  return namespace === undefined ? `subject ${subject}` : `namespace ${namespace}`;
}

/** A token bucket of lines. */
interface Rate {
  /** Takes a line's place. @returns whether there was one */
  take(nowMs: number): boolean;
  isHalfFull(nowMs: number): boolean;
  isFull(nowMs: number): boolean;
}

function createRate(linesPerSecond: number, burstLines: number): Rate {
  let places = burstLines;
  let filledAtMs: number | undefined;
  const fill = (nowMs: number): void => {
    const passedMs = nowMs - (filledAtMs ?? nowMs);
    places = Math.min(burstLines, places + (passedMs / 1_000) * linesPerSecond);
    filledAtMs = nowMs;
  };
  return {
    take(nowMs) {
      fill(nowMs);
      if (places < 1) return false;
      places -= 1;
      return true;
    },
    isHalfFull(nowMs) {
      fill(nowMs);
      return places >= burstLines / 2;
    },
    isFull(nowMs) {
      fill(nowMs);
      return places >= burstLines;
    },
  };
}

/** A queue whose first element is removed in constant time, unlike an array's. */
interface Fifo<T> {
  push(element: T): void;
  first(): T | undefined;
  shift(): void;
}

function createFifo<T>(): Fifo<T> {
  let elements: (T | undefined)[] = [];
  let head = 0;
  return {
    push: (element) => void elements.push(element),
    first: () => elements[head],
    shift() {
      elements[head] = undefined;
      head += 1;
      if (head < 1_024 || head * 2 < elements.length) return;
      elements = elements.slice(head);
      head = 0;
    },
  };
}
