import { listOf, property } from "../connector/document.ts";
import { type Finding, failure, fine, notChecked } from "./finding.ts";
import { install } from "./install-advice.ts";
import { judge, type Seen } from "./seen.ts";

const subject = "proxy's Service";

/** Whether requests get to a proxy. @param slices the EndpointSlices of the Service */
export function checkProxyService(
  service: Seen,
  slices: Seen<readonly unknown[]>,
  ref: { readonly namespace: string; readonly name: string },
): Finding {
  const named = `${ref.namespace}/${ref.name}`;
  return judge(subject, service, {
    missing: () => failure(subject, `there is no Service ${named}`, install),
    found(object) {
      const ports = portsOf(object);
      const lacking = [80, 443].filter((port) => !ports.includes(port));
      if (lacking.length > 0) {
        return failure(
          subject,
          `Service ${named} lacks the port ${lacking.join(" and ")}`,
          install,
        );
      }
      if (slices.state !== "found") {
        const why = slices.state === "unseen" ? `: ${slices.why}` : "";
        return notChecked(subject, `Service ${named} exists; its endpoints are not known${why}`);
      }
      const ready = slices.value.flatMap(readyEndpoints).length;
      if (ready > 0) return fine(subject, `Service ${named} has ${ready} proxies`);
      const advice = `kubectl logs -n ${ref.namespace} -l app.kubernetes.io/component=node -c proxy`;
      return failure(subject, `no proxy behind Service ${named} is ready`, advice);
    },
  });
}

function portsOf(service: unknown): readonly unknown[] {
  return listOf(property(property(service, "spec"), "ports")).map((port) => property(port, "port"));
}

function readyEndpoints(slice: unknown): readonly unknown[] {
  return listOf(property(slice, "endpoints")).filter(
    (one) => property(property(one, "conditions"), "ready") !== false,
  );
}
