import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { readForwardExample } from "../../clients/example.ts";
import { type Place, type PodOptions, pod } from "./objects.ts";

export interface ForwardPodOptions extends Required<Pick<PodOptions, "volume" | "image">> {
  /** As its folder in examples/ is called. */
  readonly tool: string;
  /** What names of images to build on begin with, and of those to push. */
  readonly base: string;
  readonly target: string;
  /** As daemons want it that make containers. */
  readonly isPrivileged: boolean;
}

interface MadePod {
  readonly spec: {
    readonly containers: { securityContext: object; volumeMounts: object[] }[];
    readonly volumes: object[];
    securityContext: object;
  };
}

/** A Pod that runs a tool by its commands in docs/forward-proxy.md, in a copy of the tool's folder in examples/. */
export async function forwardPod(at: Place, options: ForwardPodOptions): Promise<object> {
  const script = await scriptOf(options);
  const { volume, image } = options;
  const made = pod(at, { volume, image, command: ["sh", "-euc", script] }) as MadePod;
  const [container] = made.spec.containers;
  if (container === undefined || !options.isPrivileged) return made;
  made.spec.securityContext = {};
  made.spec.volumes.push({ name: "tmp", emptyDir: {} });
  container.securityContext = { privileged: true };
  container.volumeMounts.push(
    { name: "tmp", mountPath: "/tmp" },
    { name: "tmp", mountPath: "/var/lib/containers", subPath: "containers" },
  );
  return made;
}

async function scriptOf({ tool, base, target }: ForwardPodOptions): Promise<string> {
  const example = readForwardExample(tool);
  const daemon = example.commands("daemon", "tls").trimEnd();
  const [, socket = ""] = /(\$TMP\S+\.sock)/.exec(daemon) ?? [];
  return [
    `export VOLUME=/run/connectors TMP=/tmp HOME=/tmp BASE=${base} TARGET=${target}`,
    "mkdir $TMP/example",
    "cd $TMP/example",
    ...(await copyOf(example.folder)),
    ...(daemon === "" ? [] : [`${daemon} > $TMP/daemon.log 2>&1 &`]),
    ...(daemon === "" ? [] : [`until [ -S ${socket} ]; do sleep 0.2; done`]),
    example.commands("push", "tls"),
  ].join("\n");
}

/** Commands that write the files of a folder. */
async function copyOf(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const commands = files.map(async ({ parentPath, name }) => {
    const inside = relative(folder, parentPath);
    const content = await readFile(join(parentPath, name), "base64");
    return `mkdir -p ./${inside} && echo ${content} | base64 -d > ./${join(inside, name)}`;
  });
  return Promise.all(commands);
}
