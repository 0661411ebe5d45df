import type { Log } from "../log.ts";
import type { RegistrationHandlers } from "./generated/pluginregistration/Registration.ts";
import { pluginRegistration } from "./proto.ts";
import { driverName } from "./server.ts";
import { type SocketServer, serveOnSocket } from "./socket-server.ts";
import { createUnary } from "./unary.ts";

/** What registers the driver with the kubelet. */
export interface PluginRegistrationOptions {
  /** The socket to listen on, in the folder that the kubelet watches. */
  readonly socketPath: string;
  /** The socket that serves CSI, by the path under which the kubelet sees it. */
  readonly csiSocketPath: string;
  /** Called whenever the kubelet has registered the driver. */
  readonly onRegistered: () => void;
  readonly log: Log;
  /** How long, in milliseconds, calls in flight may take once the server is stopped. */
  readonly graceMs: number;
}

/** A running server of the kubelet's plugin registration API. */
export interface PluginRegistration extends SocketServer {
  /** Whether the kubelet has registered the driver. Volumes fail before that. */
  readonly isRegistered: () => boolean;
}

/**
 * Registers the driver with the kubelet by its plugin registration API. The kubelet calls as soon as it sees the
 * socket, and again after each of its own restarts.
 * @throws Error where the socket can't be placed
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
