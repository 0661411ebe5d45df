import { property } from "../connector/document.ts";
import { type Finding, failure, fine, install, warning } from "./finding.ts";
import { judge, type Seen } from "./seen.ts";

const subject = "controller";

/** Whether somebody looks after the Connectors. @param deployment the controller's */
export function checkController(
  deployment: Seen,
  { namespace, name }: { readonly namespace: string; readonly name: string },
): Finding {
  return judge(subject, deployment, {
    missing: () => failure(subject, `there is no Deployment ${namespace}/${name}`, install),
    found(object) {
      const wanted = Number(property(property(object, "spec"), "replicas") ?? 1);
      const available = Number(property(property(object, "status"), "availableReplicas") ?? 0);
      const found = `${available} of ${wanted} replicas are available`;
      const advice = `kubectl describe pods -n ${namespace} -l app.kubernetes.io/component=controller`;
      if (available === 0) {
        return failure(subject, `${found}: Connectors get no Service and no conditions`, advice);
      }
      return available < wanted ? warning(subject, found, advice) : fine(subject, found);
    },
  });
}
