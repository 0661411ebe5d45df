import type { Chapter } from "./workflow.ts";
import { blobs, mounts, uploads } from "./workflows/blobs.ts";
import { catalog, referrers, tags } from "./workflows/discovery.ts";
import { management } from "./workflows/management.ts";
import { artifacts, manifests } from "./workflows/manifests.ts";
import { partial, pull } from "./workflows/pull.ts";
import { refusals } from "./workflows/refusals.ts";

/** Everything that the distribution specification 1.1 describes, in the order in which it is tried. */
export const chapters: readonly Chapter[] = [
  pull,
  partial,
  blobs,
  uploads,
  mounts,
  manifests,
  artifacts,
  tags,
  referrers,
  catalog,
  management,
  refusals,
];
