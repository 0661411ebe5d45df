import { connectorApiVersion } from "../connector/connector.ts";
import { listOf, property } from "../connector/document.ts";
import { judge, type Seen } from "./cluster-reader.ts";
import { type Finding, failure, fine, install, notChecked } from "./report.ts";

const apiServer = "API server";

/** @param version what it says to `/version` */
export function checkApiServer(version: Seen, server: string): Finding {
  if (version.state === "found") {
    return fine(apiServer, `${String(property(version.value, "gitVersion"))} at ${server}`);
  }
  if (version.state === "missing")
    return notChecked(apiServer, `${server} does not report its version`);
  const advice =
    "check the kubeconfig, its context (--context) and the network: all other checks need the API server";
  return failure(apiServer, version.why, advice);
}

/** The minor version, 35 for v1.35.4; undefined where it is not known. */
export function minorVersion(version: Seen): number | undefined {
  const text = version.state === "found" ? property(version.value, "gitVersion") : undefined;
  const [, minor] = /^v1\.(\d+)/.exec(typeof text === "string" ? text : "") ?? [];
  return minor === undefined ? undefined : Number(minor);
}

const connectorDefinition = "Connector definition";

const version = connectorApiVersion.split("/")[1] ?? "";

/**
 * @param definition the CustomResourceDefinition
 * @param discovered what the API says of its group and version, which everybody may ask
 */
export function checkDefinition(definition: Seen, discovered: Seen): Finding {
  if (definition.state === "unseen") {
    return judge(connectorDefinition, discovered, {
      missing,
      found: () => fine(connectorDefinition, `${version} is served`),
    });
  }
  return judge(connectorDefinition, definition, { missing, found: judgeDefinition });
}

const missing = (): Finding =>
  failure(connectorDefinition, `${connectorApiVersion} is not known to the API server`, install);

function judgeDefinition(definition: unknown): Finding {
  const spec = property(definition, "spec");
  const versions = listOf(property(spec, "versions"));
  const served = versions.filter((one) => property(one, "served") === true);
  const ours = served.find((one) => property(one, "name") === version);
  const names = served.map((one) => String(property(one, "name"))).join(", ");
  if (ours === undefined) {
    return failure(
      connectorDefinition,
      `the API server serves ${names || "no versions"}, wanted ${version}`,
      install,
    );
  }
  if (property(property(ours, "subresources"), "status") === undefined) {
    return failure(
      connectorDefinition,
      `${version} has no status subresource, which holds the conditions`,
      install,
    );
  }
  const wrong = listOf(property(property(definition, "status"), "conditions")).find(
    (one) =>
      ["Established", "NamesAccepted"].includes(String(property(one, "type"))) &&
      property(one, "status") !== "True",
  );
  if (wrong === undefined) return fine(connectorDefinition, `${names} served`);
  const found = `${String(property(wrong, "type"))} is not True: ${String(property(wrong, "message"))}`;
  return failure(
    connectorDefinition,
    found,
    "kubectl describe crd connectors.connectors.alauda.io",
  );
}
