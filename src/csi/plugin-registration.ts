import type { Log } from "../log.ts";
import type { RegistrationHandlers } from "./generated/pluginregistration/Registration.ts";
import { pluginRegistration } from "./proto.ts";
import { driverName } from "./server.ts";
import { type SocketServer, serveOnSocket } from "./socket-server.ts";
import { createUnary } from "./unary.ts";

export interface PluginRegistrationOptions {
  /** In the folder that the kubelet watches. */
  readonly socketPath: string;
  /** Where CSI is served, as the kubelet sees the path. */
  readonly csiSocketPath: string;
  /** The kubelet knows the driver now. */
  readonly onRegistered: () => void;
  readonly log: Log;
  /** Milliseconds, as {@link SocketServer.stop} takes them. */
  readonly graceMs: number;
}

export interface PluginRegistration extends SocketServer {
  /** Whether the kubelet has said that it knows the driver: before that, volumes fail. */
  readonly isRegistered: () => boolean;
}

/**
 * Registers the driver with the kubelet (its plugin registration API), which asks as soon as the socket is
 * there, and again whenever it starts anew.
 */
export async function servePluginRegistration(
  options: PluginRegistrationOptions,
): Promise<PluginRegistration> {
  const { csiSocketPath, log } = options;
  const unary = createUnary(log);
  let registered = false;
  const handlers: RegistrationHandlers = {
    GetInfo: unary("GetInfo", async () => ({
      type: "CSIPlugin",
      name: driverName,
      endpoint: csiSocketPath,
      supportedVersions: ["1.0.0"], // of CSI
    })),
    NotifyRegistrationStatus: unary("NotifyRegistrationStatus", async (status) => {
      const isNews = status.pluginRegistered !== registered;
      registered = status.pluginRegistered;
      if (registered) options.onRegistered();
      if (isNews && registered) log("info", "the kubelet has registered the driver");
      if (!registered) {
        log("error", "the kubelet has refused to register the driver", { reason: status.error });
      }
      return {};
    }),
  };
  const server = await serveOnSocket({
    ...options,
    addServices: (grpc) =>
      grpc.addService(pluginRegistration.Registration.service, { ...handlers }),
  });
  return { ...server, isRegistered: () => registered };
}
