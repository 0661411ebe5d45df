import { fileURLToPath } from "node:url";
import { runSettings } from "../../tools/image/containerfile.ts";

/** How the image runs Node: memory is as it is where people run the program. */
export interface ImageSettings {
  /** Node's flags. */
  readonly nodeArgs: readonly string[];
  /** Environment variables, without PATH: programs are where this machine has them. */
  readonly env: Readonly<Record<string, string>>;
}

/** Reads the Containerfile. */
export function imageSettings(): ImageSettings {
  const { entrypoint, env } = runSettings(fileURLToPath(new URL("../..", import.meta.url)));
  const [, ...nodeArgs] = entrypoint.slice(0, -1);
  const settings = env.map((one) => one.split("=", 2)).filter(([name]) => name !== "PATH");
  return { nodeArgs, env: Object.fromEntries(settings) };
}
