import { property } from "../connector/document.ts";
import type { ApiClient } from "./api-client.ts";
import { hasStatus } from "./api-error.ts";

/** Somebody else may change the node between our read and our write; so often it is tried again. */
const maxAttempts = 5;

/**
 * Removes a taint from a node, whatever the taint's effect.
 * @returns whether the node had it
 * @throws what `ApiClient.request` throws
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
      if (!hasStatus(error, 409) || attempt === maxAttempts) throw error;
    }
  }
}
