import { property } from "../connector/document.ts";
import { type Finding, failure, fine, notChecked } from "./finding.ts";
import type { Seen } from "./seen.ts";

const subject = "API server";

/** @param version what it says to `/version` */
export function checkApiServer(version: Seen, server: string): Finding {
  if (version.state === "found") {
    return fine(subject, `${String(property(version.value, "gitVersion"))} at ${server}`);
  }
  if (version.state === "missing") return notChecked(subject, `${server} does not say its version`);
  const advice =
    "look at the kubeconfig, its context (--context), and the network: everything else is asked there";
  return failure(subject, version.why, advice);
}

/** The minor version, 35 for v1.35.4; undefined where it is not known. */
export function minorVersion(version: Seen): number | undefined {
  const text = version.state === "found" ? property(version.value, "gitVersion") : undefined;
  const [, minor] = /^v1\.(\d+)/.exec(typeof text === "string" ? text : "") ?? [];
  return minor === undefined ? undefined : Number(minor);
}
