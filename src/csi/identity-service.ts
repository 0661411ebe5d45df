import type { IdentityHandlers } from "./generated/csi/v1/Identity.ts";
import type { Unary } from "./unary.ts";

/** The name in a Pod's volume (`csi.driver`) and of the CSIDriver. */
export const driverName = "connectors-csi";

export interface IdentityOptions {
  readonly version: string;
  /** Whether volumes can be published now. */
  readonly isReady: () => boolean;
  readonly unary: Unary;
}

export function createIdentityService({
  version,
  isReady,
  unary,
}: IdentityOptions): IdentityHandlers {
  return {
    GetPluginInfo: unary("GetPluginInfo", async () => ({
      name: driverName,
      vendorVersion: version,
    })),
    // No controller service, and no topology: an inline volume is made where its Pod is.
    GetPluginCapabilities: unary("GetPluginCapabilities", async () => ({ capabilities: [] })),
    Probe: unary("Probe", async () => ({ ready: { value: isReady() } })),
  };
}
