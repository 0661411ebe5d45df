import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { type InstalledCluster, until } from "./installed-cluster.ts";

const examples = join(import.meta.dirname, "../../../examples/kubernetes");

/** What a reader does: puts in their own registry and login, and here the image of the tool that the nodes have. */
export async function applyExample(
  cluster: InstalledCluster,
  file: string,
  replaced: Readonly<Record<string, string>> = {},
): Promise<void> {
  let text = await readFile(join(examples, file), "utf8");
  for (const [from, to] of Object.entries(replaced)) {
    expect(text).to.contain(from);
    text = text.replaceAll(from, to);
  }
  await cluster.kubectl(["apply", "-f", "-"], text);
}

/** Waits for the end of a Pod. @throws with its log, where it is no good one */
export async function expectSuccess(
  cluster: InstalledCluster,
  namespace: string,
  kind: "pod" | "job",
  name: string,
): Promise<void> {
  const phase = await until(
    async () => {
      const selector = kind === "job" ? ["-l", `job-name=${name}`] : [];
      const pods = await cluster.list("pods", namespace, ...selector);
      const own = pods.find(({ metadata }) => kind === "job" || metadata.name === name);
      const found = own?.status.phase as string | undefined;
      return (found === "Succeeded" || found === "Failed") && found;
    },
    `the ${kind} ${name} does not end`,
    120,
  );
  const log = await cluster.kubectl(["logs", "-n", namespace, `${kind}/${name}`, "--tail=50"]);
  expect(phase, log).to.equal("Succeeded");
}
