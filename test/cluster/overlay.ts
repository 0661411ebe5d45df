import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Writes an overlay of daemonset/, or a component for one. The folder is made where it is missing. */
export async function writeOverlay(
  folder: string,
  kustomization: object,
  kind: "Kustomization" | "Component" = "Kustomization",
): Promise<void> {
  const version = kind === "Component" ? "v1alpha1" : "v1beta1";
  const apiVersion = `kustomize.config.k8s.io/${version}`;
  await mkdir(folder, { recursive: true });
  await writeFile(
    join(folder, "kustomization.yaml"),
    JSON.stringify({ apiVersion, kind, ...kustomization }),
  );
}

/** What an overlay says to change settings of daemonset/settings.env. */
export const changedSettings = (
  settings: { readonly literals: readonly string[] } | { readonly envs: readonly string[] },
): { readonly configMapGenerator: readonly object[] } => ({
  configMapGenerator: [
    {
      name: "connectors-settings",
      namespace: "connectors-system",
      behavior: "merge",
      ...settings,
    },
  ],
});
