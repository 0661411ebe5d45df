import { property } from "../connector/document.ts";
import type { ApiClient } from "./api-client.ts";
import { hasStatus } from "./api-error.ts";

/** How often somebody else may change the node in the meantime. */
const mostAttempts = 5;

/**
 * Takes a taint away from a node, whatever its effect; one that is not there is none to take away.
 * @returns whether it was there
 * @throws ApiError, Unavailable
 */
export async function removeTaint(
  client: Pick<ApiClient, "request">,
  nodeName: string,
  taintKey: string,
): Promise<boolean> {
  const path = `/api/v1/nodes/${nodeName}`;
  for (let attempt = 1; ; attempt += 1) {
    const node = await client.request({ path });
    const found = property(property(node, "spec"), "taints");
    const taints: readonly unknown[] = Array.isArray(found) ? found : [];
    const kept = taints.filter((taint) => property(taint, "key") !== taintKey);
    if (kept.length === taints.length) return false;
    // The version makes a change that came between a conflict: a merge patch replaces the whole list.
    const resourceVersion = property(property(node, "metadata"), "resourceVersion");
    const body = { metadata: { resourceVersion }, spec: { taints: kept } };
    try {
      const contentType = "application/merge-patch+json";
      await client.request({ method: "PATCH", path, body, contentType });
      return true;
    } catch (error) {
      if (!hasStatus(error, 409) || attempt === mostAttempts) throw error;
    }
  }
}
