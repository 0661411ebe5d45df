import { property } from "../connector/document.ts";

/** How long a volume lives at most. An unmount ends it before that. */
export interface VolumeLife {
  /** The boot of the machine in which it was mounted: the text of `/proc/sys/kernel/random/boot_id`. */
  readonly boot: string;
  /** Whether it is mounted again after a reboot. */
  readonly persistent: boolean;
  /** Milliseconds since 1970; undefined for a volume that time does not end. */
  readonly endsAt?: number;
  /** The process that the volume ends with. */
  readonly process?: ProcessId;
}

/** A process of this boot. The kernel gives its number to another one later, but not with the same start. */
export interface ProcessId {
  readonly pid: number;
  /** When it was started, in the kernel's ticks since the boot (`starttime` of proc_pid_stat(5)). */
  readonly startTicks: number;
}

/** What is seen of the machine when the lives of volumes are looked at. */
export interface MachineView {
  /** The id of this boot. */
  readonly boot: string;
  /** Milliseconds since 1970. */
  readonly now: number;
  /** The start of a process, or undefined where none with that number runs. */
  readonly processStart: (pid: number) => Promise<number | undefined>;
}

/** Why a volume's life is over, as a clause; undefined while it is not. */
export async function whyLifeIsOver(
  life: VolumeLife,
  { boot, now, processStart }: MachineView,
): Promise<string | undefined> {
  if (life.boot !== boot && !life.persistent) return "the machine has been started again";
  if (life.endsAt !== undefined && life.endsAt <= now) return "its time is over";
  const { process } = life;
  if (process !== undefined && (await processStart(process.pid)) !== process.startTicks) {
    return `process ${process.pid} has ended`;
  }
  return undefined;
}

/** Whether a value of a record has the form of a life. */
export function isVolumeLife(value: unknown): value is VolumeLife {
  const endsAt = property(value, "endsAt");
  const process = property(value, "process");
  return (
    typeof property(value, "boot") === "string" &&
    typeof property(value, "persistent") === "boolean" &&
    (endsAt === undefined || typeof endsAt === "number") &&
    (process === undefined ||
      (typeof property(process, "pid") === "number" &&
        typeof property(process, "startTicks") === "number"))
  );
}

/**
 * When a process was started, in the kernel's ticks since the boot.
 * @param stat the text of `/proc/<pid>/stat`
 * @returns undefined for a process that has ended and that its parent has not waited for yet
 */
export function startTicksIn(stat: string): number | undefined {
  const fields = statFieldsIn(stat);
  const isEnded = fields[0] === "Z" || fields[0] === "X";
  const ticks = Number(fields[startField - stateField]);
  return isEnded || !Number.isSafeInteger(ticks) ? undefined : ticks;
}

/**
 * The fields behind the second one, which is the program's name in brackets, and may hold spaces and brackets itself.
 * @param stat the text of `/proc/<pid>/stat`
 */
export const statFieldsIn = (stat: string): readonly string[] =>
  stat.slice(stat.lastIndexOf(")") + 2).split(" ");

/** The places of two fields of proc_pid_stat(5), whose first one has the number 1. */
const stateField = 3;
const startField = 22;
