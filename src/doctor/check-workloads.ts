import { property } from "../connector/document.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, installAdvice, warning } from "./report.ts";

/** The names of what runs on the nodes. */
export interface NodeNames {
  readonly namespace: string;
  readonly daemonSet: string;
  readonly driver: string;
}

const listPods = ({ namespace }: NodeNames): string =>
  `kubectl get pods -n ${namespace} -l app.kubernetes.io/component=node -o wide`;

/** Checks whether the csi role and the proxy run on every node. */
export function checkDaemonSet(daemonSet: Observed, names: NodeNames): Finding {
  const subject = "DaemonSet";
  return findingFor(subject, daemonSet, {
    missing: () =>
      failure(
        subject,
        `there is no DaemonSet ${names.namespace}/${names.daemonSet}`,
        installAdvice,
      ),
    found(object) {
      const count = (field: string): number =>
        Number(property(property(object, "status"), field) ?? 0);
      const wanted = count("desiredNumberScheduled");
      const ready = count("numberReady");
      const found = `${ready} of ${wanted} Pods are ready`;
      if (wanted === 0)
        return warning(subject, "no node is selected for a Pod", "check its nodeSelector");
      if (ready === 0) return failure(subject, found, listPods(names));
      if (ready < wanted) return warning(subject, found, listPods(names));
      const updated = count("updatedNumberScheduled");
      return fine(subject, updated < wanted ? `${found}, ${updated} of them updated` : found);
    },
  });
}

/**
 * Checks whether the kubelets know the driver: where one does not, every Pod with a volume fails.
 * @param csiNodes the CSINodes, one for each node
 * @param nodes the Nodes, which alone say which of them run Linux and are ready
 */
export function checkRegistration(
  csiNodes: Observed<readonly unknown[]>,
  nodes: Observed<readonly unknown[]>,
  names: NodeNames,
): Finding {
  const subject = "registration";
  return findingFor(subject, csiNodes, {
    missing: () =>
      failure(subject, "the cluster has no CSINodes", "CSINodes need Kubernetes 1.17 or newer"),
    found(items) {
      const registered = new Set(items.filter((item) => hasDriver(item, names.driver)).map(nameOf));
      const expected = nodes.state === "found" ? nodes.value.filter(mayHaveDriver) : items;
      const unregistered = expected.filter((node) => !registered.has(nameOf(node)));
      const found = `${expected.length - unregistered.length} of ${expected.length} kubelets have registered ${names.driver}`;
      if (unregistered.length === 0) return fine(subject, found);
      const ready = unregistered.filter((node) => !isDown(node));
      const sentence = `${found}, not ${namesOf(ready.length > 0 ? ready : unregistered)}`;
      if (ready.length === 0)
        return warning(subject, sentence, "these nodes are not ready themselves");
      const advice = `Pods with volumes fail there (FailedMount): ${listPods(names)}; KUBELET_REGISTRATION in daemonset/settings.env must be the kubelet's folder`;
      return failure(subject, sentence, advice);
    },
  });
}

const nameOf = (object: unknown): string => String(property(property(object, "metadata"), "name"));

function hasDriver(csiNode: unknown, driver: string): boolean {
  const drivers = property(property(csiNode, "spec"), "drivers");
  return Array.isArray(drivers) && drivers.some((one) => property(one, "name") === driver);
}

/** Whether the DaemonSet selects a node, by its nodeSelector and its affinity. */
function mayHaveDriver(node: unknown): boolean {
  const labels = property(property(node, "metadata"), "labels");
  return (
    (property(labels, "kubernetes.io/os") ?? "linux") === "linux" &&
    property(labels, "eks.amazonaws.com/compute-type") !== "fargate" &&
    property(labels, "type") !== "virtual-kubelet"
  );
}

/** Whether a Node is not ready. A CSINode has no conditions, so it never is. */
function isDown(node: unknown): boolean {
  const conditions = property(property(node, "status"), "conditions");
  const ready = Array.isArray(conditions)
    ? conditions.find((one) => property(one, "type") === "Ready")
    : undefined;
  return ready !== undefined && property(ready, "status") !== "True";
}

/** How many nodes a finding names at most. */
const maxNamed = 5;

function namesOf(nodes: readonly unknown[]): string {
  const named = nodes.slice(0, maxNamed).map(nameOf).join(", ");
  return nodes.length > maxNamed ? `${named} and ${nodes.length - maxNamed} more` : named;
}

const controller = "controller";

/** Checks whether the controller runs. @param deployment the controller's Deployment */
export function checkController(
  deployment: Observed,
  { namespace, name }: { readonly namespace: string; readonly name: string },
): Finding {
  return findingFor(controller, deployment, {
    missing: () =>
      failure(controller, `there is no Deployment ${namespace}/${name}`, installAdvice),
    found(object) {
      const wanted = Number(property(property(object, "spec"), "replicas") ?? 1);
      const available = Number(property(property(object, "status"), "availableReplicas") ?? 0);
      const found = `${available} of ${wanted} replicas are available`;
      const advice = `kubectl describe pods -n ${namespace} -l app.kubernetes.io/component=controller`;
      if (available === 0) {
        return failure(controller, `${found}: Connectors get no Service and no conditions`, advice);
      }
      return available < wanted ? warning(controller, found, advice) : fine(controller, found);
    },
  });
}
