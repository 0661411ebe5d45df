import { runCommand } from "./run-command.ts";

/** Runs kubectl as an administrator. @returns its output @throws an Error with what it complained of */
export type Kubectl = (args: readonly string[], input?: string) => Promise<string>;

/**
 * @param prefix what to put before the command line
 * @param bin a folder that holds kubectl where the machine has none
 */
export function kubectlWith(
  kubeconfig: string,
  { prefix = [], bin = "" }: { readonly prefix?: readonly string[]; readonly bin?: string } = {},
): Kubectl {
  const env = { KUBECONFIG: kubeconfig, PATH: `${process.env.PATH}:${bin}` };
  return (args, input) => runCommand([...prefix, "kubectl", ...args], { input, env });
}
