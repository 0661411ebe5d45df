import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ImageOptions } from "./scratch-image.ts";

/** What the last stage of the Containerfile says of how the program is run: it stands there, and nowhere else. */
export function runSettings(
  root: string,
): Required<Pick<ImageOptions, "entrypoint" | "env" | "user">> {
  const text = readFileSync(join(root, "Containerfile"), "utf8");
  const stage = text.slice(text.lastIndexOf("\nFROM scratch\n"));
  const [user = "", ...others] = instructions(stage, "USER");
  const [entrypoint = ""] = instructions(stage, "ENTRYPOINT");
  if (others.length > 0 || user === "") throw new Error("Containerfile: wanted one USER");
  return {
    user,
    entrypoint: JSON.parse(entrypoint) as string[],
    env: instructions(stage, "ENV"),
  };
}

const instructions = (stage: string, name: string): readonly string[] =>
  [...stage.matchAll(new RegExp(`^${name} (.*)$`, "gm"))].map(([, rest]) => rest ?? "");
