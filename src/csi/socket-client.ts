import { once } from "node:events";
import { connect } from "node:net";
import { userInfo } from "node:os";
import { type ChannelCredentials, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { errorCode } from "../error-code.ts";

/** The kubelet waits as long for a call. */
const callTimeoutMs = 120_000;

/**
 * Calls a method of a service that another process serves on a Unix socket.
 * @param Client the service's client, as `proto.ts` has it
 * @param start calls the method
 * @throws Error with the service's message, or with what to do where nobody serves it
 * @example
 * await callOnSocket(volumes.Volumes, socketPath, (client, deadline, done) =>
 *   client.unmount({ targetPath }, { deadline }, done),
 * );
 */
export async function callOnSocket<Client extends { close(): void }, Response>(
  Client: new (address: string, channelCredentials: ChannelCredentials) => Client,
  socketPath: string,
  start: (
    client: Client,
    deadline: Date,
    done: (error: ServiceError | null, response?: Response) => void,
  ) => unknown,
): Promise<Response> {
  await checkListener(socketPath);
  const client = new Client(`unix:${socketPath}`, credentials.createInsecure());
  try {
    return await new Promise((resolve, reject) => {
      start(client, new Date(Date.now() + callTimeoutMs), (error, response) =>
        error === null ? resolve(response as Response) : reject(new Error(messageOf(error))),
      );
    });
  } finally {
    client.close();
  }
}

const messageOf = ({ code, details }: ServiceError): string =>
  code === status.UNIMPLEMENTED
    ? "the standalone process is of another version than this command: start it again, so that both are of one"
    : inWordsOfTheCommandLine(details);

/** What a driver calls the target and its own log, in the words of whoever has typed the command. */
const inWordsOfTheCommandLine = (message: string): string =>
  message
    .replace(/(^|; )target_path\b/g, "$1TARGET")
    .replace(/(^|; )configuration\.names\b/g, "$1--configuration")
    .replace("internal error; see the driver's log", "the process failed; its log has the cause")
    .replace("see the driver's log", "the log of the process has the cause");

/** Connects once beforehand: grpc-js retries where nobody listens, and its last error does not say why. */
async function checkListener(socketPath: string): Promise<void> {
  const socket = connect(socketPath);
  try {
    await once(socket, "connect");
  } catch (error) {
    const code = String(errorCode(error));
    throw new Error(`can't connect to ${socketPath} (${code}): ${adviceFor(code)}`);
  } finally {
    socket.destroy();
  }
}

/** What helps a user whose command can't connect. Root and the process share a socket; each other user has one, if any. */
function adviceFor(code: string): string {
  const uid = process.geteuid?.() ?? 0;
  if (uid === 0 || code === "ECONNREFUSED") return "is `oci-connector standalone` running?";
  const user = userName() ?? String(uid);
  return `either \`oci-connector standalone\` is not running with this --run-folder, or its operator has not allowed user ${user} any connector: root starts it with --allow ${user}=NAMESPACE/NAME`;
}

/** @returns undefined for a user without a name on this machine */
function userName(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined;
  }
}
