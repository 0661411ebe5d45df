import { show } from "../connector/problem.ts";

/** What is seen of the places at which volumes are mounted. */
export interface TargetPlaces {
  /** The target without symbolic links in its parents, or undefined where its parent is no folder. */
  readonly resolveTarget: (path: string) => Promise<string | undefined>;
  /** Where volumes are mounted, by the kernel's mount table. */
  readonly mountPoints: () => Promise<ReadonlySet<string>>;
  /** Whether a folder has anything in it. A missing one has nothing. */
  readonly hasFiles: (path: string) => Promise<boolean>;
}

/** What a new mount may do at its place. */
export interface PlaceTerms {
  /** Whether it may take the place of a volume that is mounted there. */
  readonly replaces: boolean;
  /** Whether it may hide files that are there. */
  readonly hidesFiles: boolean;
}

/** Why a volume can't be mounted at a path, with what to do; undefined where it can. */
export async function whyNotAt(
  { mountPoints, hasFiles }: TargetPlaces,
  path: string,
  { replaces, hidesFiles }: PlaceTerms,
): Promise<string | undefined> {
  const mounted = await mountPoints();
  if (mounted.has(path)) {
    if (replaces) return undefined;
    return `${show(path)} has a volume already: unmount that first, or add --replace`;
  }
  const outer = [...mounted].find((point) => path.startsWith(`${point}/`));
  if (outer !== undefined) {
    return `${show(path)} lies in the volume that is mounted at ${show(outer)}: name a folder outside of it`;
  }
  if (hidesFiles || !(await hasFiles(path))) return undefined;
  return `${show(path)} has files in it, which the volume would hide: name an empty folder or a new one, or add --force`;
}

/** Whether two targets are one place, by whatever links they lead there. */
export async function isSamePlace(
  { resolveTarget }: TargetPlaces,
  one: string,
  other: string,
): Promise<boolean> {
  if (one === other) return true;
  const place = await resolveTarget(one);
  return place !== undefined && place === (await resolveTarget(other));
}
