import type { CheckSettings } from "../config/check-command.ts";
import { diagnoseFolder } from "../doctor/diagnose-folder.ts";
import { type Diagnosis, diagnosisOf } from "../doctor/report.ts";
import { createProbe } from "../upstream/probe.ts";
import { createUpstreams } from "../upstream/upstream.ts";
import { egressOf } from "./egress.ts";

/** A registry's response counts as cut after so long without a byte. */
const bodyTimeoutMs = 15_000;

/** Checks a folder of connectors, and where it is wanted the registries that they lead to. */
export async function check({ folder, login, egress, output }: CheckSettings): Promise<Diagnosis> {
  const way = await egressOf(egress);
  const upstreams = createUpstreams(bodyTimeoutMs, { egress: way });
  try {
    const probe = login ? createProbe(upstreams) : undefined;
    const { signal } = new AbortController();
    return diagnosisOf(await diagnoseFolder({ folder, probe, signal }), output);
  } finally {
    upstreams.destroy();
  }
}
