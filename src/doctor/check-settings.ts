import { listOf, property } from "../connector/document.ts";
import { show } from "../connector/problem.ts";
import type { Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, notChecked } from "./report.ts";

const subject = "settings";

/** Settings that kustomize copies into fields, and where they have to be. */
interface CopiedSetting {
  readonly setting: string;
  /** The object with the fields, as its kind. */
  readonly holder: "CSIDriver" | "DaemonSet";
  readonly fields: (object: unknown) => readonly unknown[];
}

const tokenRequest = (driver: unknown): unknown =>
  listOf(property(property(driver, "spec"), "tokenRequests"))[0];

const named = (items: unknown, name: string): unknown =>
  listOf(items).find((item) => property(item, "name") === name);

/** The folder of a volume of the node, and the path at which the csi container sees it. */
const pathsOf =
  (volume: string) =>
  (daemonSet: unknown): readonly unknown[] => {
    const pod = ["spec", "template", "spec"].reduce<unknown>(property, daemonSet);
    const csi = named(property(pod, "containers"), "csi");
    const hostPath = property(named(property(pod, "volumes"), volume), "hostPath");
    const mount = named(property(csi, "volumeMounts"), volume);
    return [property(hostPath, "path"), property(mount, "mountPath")];
  };

/** daemonset/settings-in-fields/transformer.yaml copies them; a test compares the two. */
export const copiedSettings: readonly CopiedSetting[] = [
  {
    setting: "AUDIENCE",
    holder: "CSIDriver",
    fields: (driver) => [property(tokenRequest(driver), "audience")],
  },
  {
    setting: "TOKEN_LIFETIME",
    holder: "CSIDriver",
    fields: (driver) => [property(tokenRequest(driver), "expirationSeconds")],
  },
  { setting: "KUBELET_PODS", holder: "DaemonSet", fields: pathsOf("pods") },
  { setting: "KUBELET_PLUGIN", holder: "DaemonSet", fields: pathsOf("plugin") },
  { setting: "KUBELET_REGISTRATION", holder: "DaemonSet", fields: pathsOf("registration") },
];

/**
 * Checks whether the settings that kustomize has to copy into fields are there. An overlay that changes one of them
 * changes the ConfigMap alone, unless it names the transformer.
 * @param settings the data of the ConfigMap; undefined where it can't be read
 */
export function checkSettings(
  settings: Readonly<Record<string, string>> | undefined,
  holders: Readonly<Record<CopiedSetting["holder"], Observed>>,
): Finding {
  if (settings === undefined) {
    return notChecked(subject, "the ConfigMap that the DaemonSet names can't be read");
  }
  const differences = copiedSettings.flatMap(({ setting, holder, fields }) => {
    const wanted = settings[setting];
    const observed = holders[holder];
    if (wanted === undefined || observed.state !== "found") return [];
    const other = fields(observed.value).find((value) => String(value) !== wanted);
    return other === undefined
      ? []
      : [`${setting} is ${show(wanted)}, but the ${holder} has ${show(other)}`];
  });
  if (differences.length === 0) return fine(subject, "all are where they belong");
  return failure(
    subject,
    differences.join("; "),
    'kustomize copies these: add "transformers: [../oci-connector/daemonset/settings-in-fields]" to the kustomization.yaml of your overlay, and apply it again',
  );
}
