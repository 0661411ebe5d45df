import { connectorApiVersion } from "../connector/connector.ts";
import { listOf, property } from "../connector/document.ts";
import { findingFor, type Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, installAdvice, notChecked } from "./report.ts";

const apiServer = "API server";

/** Checks whether the API server responds. @param version its `/version` @param server its address */
export function checkApiServer(version: Observed, server: string): Finding {
  if (version.state === "found") {
    return fine(apiServer, `${String(property(version.value, "gitVersion"))} at ${server}`);
  }
  if (version.state === "missing")
    return notChecked(apiServer, `${server} does not report its version`);
  const advice =
    "check the kubeconfig, its context (--context) and the network: all other checks need the API server";
  return failure(apiServer, version.why, advice);
}

/**
 * The minor version of Kubernetes: 35 for v1.35.4; undefined where it is not known.
 * @param version the API server's `/version`
 */
export function minorVersion(version: Observed): number | undefined {
  const text = version.state === "found" ? property(version.value, "gitVersion") : undefined;
  const [, minor] = /^v1\.(\d+)/.exec(typeof text === "string" ? text : "") ?? [];
  return minor === undefined ? undefined : Number(minor);
}

const connectorDefinition = "Connector definition";

const version = connectorApiVersion.split("/")[1] ?? "";

/**
 * Checks whether the API server knows Connectors as this program does.
 * @param definition the CustomResourceDefinition
 * @param discovered the discovery document of the API's group and version, which everybody may read
 */
export function checkDefinition(definition: Observed, discovered: Observed): Finding {
  if (definition.state === "unknown") {
    return findingFor(connectorDefinition, discovered, {
      missing: missingDefinition,
      found: () => fine(connectorDefinition, `${version} is served`),
    });
  }
  return findingFor(connectorDefinition, definition, {
    missing: missingDefinition,
    found: definitionFinding,
  });
}

const missingDefinition = (): Finding =>
  failure(
    connectorDefinition,
    `${connectorApiVersion} is not known to the API server`,
    installAdvice,
  );

function definitionFinding(definition: unknown): Finding {
  const spec = property(definition, "spec");
  const versions = listOf(property(spec, "versions"));
  const served = versions.filter((one) => property(one, "served") === true);
  const ours = served.find((one) => property(one, "name") === version);
  const names = served.map((one) => String(property(one, "name"))).join(", ");
  if (ours === undefined) {
    return failure(
      connectorDefinition,
      `the API server serves ${names || "no versions"}, wanted ${version}`,
      installAdvice,
    );
  }
  if (property(property(ours, "subresources"), "status") === undefined) {
    return failure(
      connectorDefinition,
      `${version} has no status subresource, which holds the conditions`,
      installAdvice,
    );
  }
  const failed = listOf(property(property(definition, "status"), "conditions")).find(
    (one) =>
      ["Established", "NamesAccepted"].includes(String(property(one, "type"))) &&
      property(one, "status") !== "True",
  );
  if (failed === undefined) return fine(connectorDefinition, `${names} served`);
  const found = `${String(property(failed, "type"))} is not True: ${String(property(failed, "message"))}`;
  return failure(
    connectorDefinition,
    found,
    "kubectl describe crd connectors.connectors.alauda.io",
  );
}
