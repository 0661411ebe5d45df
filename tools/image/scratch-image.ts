/** Makes container images FROM scratch, so that no registry is needed: docker archives, the same bytes for the same input. */
import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { type LayerContent, layerEntries, textEntry } from "./layer.ts";
import { type TarEntry, tarBlocks } from "./tar.ts";

export interface ImageOptions {
  /** `localhost/name:tag` */
  readonly name: string;
  /** The lowest first. */
  readonly layers: readonly LayerContent[];
  readonly entrypoint: readonly string[];
  readonly workingDir?: string;
  /** `65532:65532`; root unless given. */
  readonly user?: string;
  /** `NAME=value`; a PATH unless given. */
  readonly env?: readonly string[];
}

/** Writes an image as `docker load`, `ctr images import` and skopeo's `docker-archive:` read it. */
export function writeImage(target: string, options: ImageOptions): void {
  const layers = layerEntries(options.layers).map((entries) => ({ entries, ...measure(entries) }));
  const architecture = { x64: "amd64" }[process.arch as string] ?? process.arch;
  const config = JSON.stringify({
    architecture,
    os: "linux",
    config: {
      Entrypoint: options.entrypoint,
      Env: options.env ?? ["PATH=/bin:/usr/bin"],
      WorkingDir: options.workingDir ?? "/",
      ...(options.user === undefined ? {} : { User: options.user }),
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ digest }) => `sha256:${digest}`) },
  });
  const configName = `${createHash("sha256").update(config).digest("hex")}.json`;
  const manifest = JSON.stringify([
    {
      Config: configName,
      RepoTags: [options.name],
      Layers: layers.map(({ digest }) => `${digest}.tar`),
    },
  ]);
  const archive: TarEntry[] = [
    ...layers.map(
      ({ digest, size, entries }): TarEntry => ({
        kind: "file",
        path: `${digest}.tar`,
        mode: 0o644,
        size,
        content: () => tarBlocks(entries),
      }),
    ),
    textEntry(configName, config),
    textEntry("manifest.json", manifest),
  ];
  const file = openSync(target, "w");
  try {
    for (const block of tarBlocks(archive)) writeSync(file, block);
  } finally {
    closeSync(file);
  }
}

function measure(entries: readonly TarEntry[]): { digest: string; size: number } {
  const hash = createHash("sha256");
  let size = 0;
  for (const block of tarBlocks(entries)) {
    hash.update(block);
    size += block.length;
  }
  return { digest: hash.digest("hex"), size };
}
