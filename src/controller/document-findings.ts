import { describeProblems, type Problem } from "../connector/problem.ts";
import { bad, type Finding, type PartType } from "./conditions.ts";

/** Where a problem with a Connector's document shows: the first prefix of its path that is named here. */
const places: readonly (readonly [prefix: string, type: PartType, reason: string])[] = [
  ["spec.connectorClassName", "ConnectorClassReady", "ConnectorClassNotFound"],
  ["spec.address", "LivenessReady", "AddressInvalid"],
  ["spec.auth.params", "AuthReady", "ParametersInvalid"],
  ["spec.auth", "SecretReady", "SecretRefInvalid"],
  ["", "ConnectorClassReady", "SpecInvalid"],
];

/**
 * What is wrong with a document, by the condition that shows it. Of a document of another class
 * nothing else is said, since the rest may mean anything.
 */
export function documentFindings(
  problems: readonly Problem[],
): Readonly<Partial<Record<PartType, Finding>>> {
  const placed = problems.map((problem) => ({ problem, place: placeOf(problem) }));
  const foreign = placed.filter(({ place }) => place === places[0]);
  const findings: Partial<Record<PartType, Finding>> = {};
  for (const { place } of foreign.length > 0 ? foreign : placed) {
    const [, type, reason] = place;
    const alike = placed.filter((other) => other.place === place).map(({ problem }) => problem);
    findings[type] ??= bad(reason, describeProblems(alike));
  }
  return findings;
}

function placeOf({ path }: Problem): (typeof places)[number] {
  const place = places.find(([prefix]) => path.startsWith(prefix));
  if (place === undefined) throw new Error("no prefix matches, although the last one is empty");
  return place;
}
