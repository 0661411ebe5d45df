import { availableParallelism, release, type } from "node:os";
import { runProgram } from "../test/support/program.ts";

/** What the figures were measured on, in one line; nothing that would name a machine. */
export async function describeMachine(): Promise<string> {
  const { stderr } = await runProgram("nginx", ["-v"]);
  const nginx = /nginx\/([\d.]+)/.exec(stderr)?.[1] ?? "of an unknown version";
  const cores = `${availableParallelism()} cores`;
  return `${cores}, ${type()} ${release()}, Node ${process.versions.node}, nginx ${nginx}`;
}
