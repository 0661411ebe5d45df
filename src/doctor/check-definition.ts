import { connectorApiVersion } from "../connector/connector.ts";
import { listOf, property } from "../connector/document.ts";
import { type Finding, failure, fine } from "./finding.ts";
import { install } from "./install-advice.ts";
import { judge, type Seen } from "./seen.ts";

const subject = "Connector definition";
const version = connectorApiVersion.split("/")[1] ?? "";

/**
 * @param definition the CustomResourceDefinition
 * @param discovered what the API says of its group and version, which everybody may ask
 */
export function checkDefinition(definition: Seen, discovered: Seen): Finding {
  if (definition.state === "unseen") {
    return judge(subject, discovered, {
      missing,
      found: () => fine(subject, `${version} is served`),
    });
  }
  return judge(subject, definition, { missing, found: judgeDefinition });
}

const missing = (): Finding =>
  failure(subject, `${connectorApiVersion} is not known to the API server`, install);

function judgeDefinition(definition: unknown): Finding {
  const spec = property(definition, "spec");
  const versions = listOf(property(spec, "versions"));
  const served = versions.filter((one) => property(one, "served") === true);
  const ours = served.find((one) => property(one, "name") === version);
  const names = served.map((one) => String(property(one, "name"))).join(", ");
  if (ours === undefined) {
    return failure(
      subject,
      `the API server serves ${names || "no versions"}, wanted ${version}`,
      install,
    );
  }
  if (property(property(ours, "subresources"), "status") === undefined) {
    return failure(
      subject,
      `${version} has no status subresource, which holds the conditions`,
      install,
    );
  }
  const wrong = listOf(property(property(definition, "status"), "conditions")).find(
    (one) =>
      ["Established", "NamesAccepted"].includes(String(property(one, "type"))) &&
      property(one, "status") !== "True",
  );
  if (wrong === undefined) return fine(subject, `${names} served`);
  const found = `${String(property(wrong, "type"))} is not True: ${String(property(wrong, "message"))}`;
  return failure(subject, found, "kubectl describe crd connectors.connectors.alauda.io");
}
