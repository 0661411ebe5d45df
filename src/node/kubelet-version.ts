/** Whether a kubelet reads what it is told. One that can't read its configuration does not start. */
import type { ProviderConfigPlace } from "./provider-config.ts";

/** Tokens of ServiceAccounts for credential providers are on by default since (KEP-4412). */
const withTokens = [1, 34] as const;
/** `--image-credential-provider-config` may be a folder since. */
const withFolders = [1, 35] as const;

/**
 * What is wrong with the version of a node's kubelet; undefined where it is right.
 * @param version `v1.35.4`, as the Node has it
 */
export function kubeletProblem(
  version: string,
  { file }: Pick<ProviderConfigPlace, "file">,
): string | undefined {
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
  const isBefore = ([wantedMajor, wantedMinor]: readonly [number, number]): boolean =>
    !(
      Number(major) > wantedMajor ||
      (Number(major) === wantedMajor && Number(minor) >= wantedMinor)
    );
  if (isBefore(withTokens)) {
    return `the kubelet is ${version || "of an unknown version"}, and gives tokens of Pods to a plug-in since v1.34: nothing is written`;
  }
  if (file === undefined && isBefore(withFolders)) {
    return `the kubelet is ${version}, and reads a folder of credential providers since v1.35: set NODE_PROVIDER_FILE`;
  }
  return undefined;
}
