import { randomUUID } from "node:crypto";
import { createLeafIssuer } from "../certificate-authority.ts";
import type { StandaloneSettings } from "../config/command.ts";
import { withBrackets } from "../connector/host-name.ts";
import { listenerHosts, type ProxyHosts } from "../connector/proxy-address.ts";
import { withIdentityLogins } from "../credentials/identity-logins.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "../csi/generated/csi/v1/NodePublishVolumeRequest.ts";
import { volumes } from "../csi/proto.ts";
import { invalidArgument, notFound } from "../csi/rpc-error.ts";
import { serveCsi } from "../csi/server.ts";
import { checkSocketPlace } from "../csi/socket-server.ts";
import { hasFiles, resolveTarget } from "../csi/target-path.ts";
import type { Unary } from "../csi/unary.ts";
import { createUserFolders } from "../csi/user-folder.ts";
import { ownMountPoints, systemMounts } from "../csi/volume-mounts.ts";
import { createVolumeNode, type VolumeNode } from "../csi/volume-node.ts";
import type { Log } from "../log.ts";
import { startProxy } from "../proxy/proxy.ts";
import type { ListenAddress } from "../proxy/server/listener.ts";
import { findAllowedUsers } from "../standalone/allowed-users.ts";
import type { Caller } from "../standalone/caller.ts";
import { type ConnectorFolder, openConnectorFolder } from "../standalone/connector-folder.ts";
import { findInFolder, mayUseNamed, secretsInFolder } from "../standalone/folder-platform.ts";
import { every } from "../standalone/refresh-schedule.ts";
import { openStateFolder } from "../standalone/state-folder.ts";
import { createTokenSigner, createTokenVerifier } from "../standalone/tokens.ts";
import { startVolumeKeeper, type VolumeKeeper } from "../standalone/volume-keeper.ts";
import { createVolumeRecordStore } from "../standalone/volume-records.ts";
import { version } from "../version.ts";
import { egressOf } from "./egress.ts";
import { createMachineIdentities } from "./identities.ts";
import { bootId, processStart, processUser } from "./machine.ts";
import { interfaceAddresses } from "./own-addresses.ts";
import { createProxyObserver } from "./proxy-observer.ts";
import type { Role } from "./role.ts";
import { rootCertificates } from "./root-certificates.ts";
import { checkAddresses, checkMountSupport, explainListening } from "./standalone-checks.ts";
import { createUserDatabase } from "./user-database.ts";
import { createUserRequestCheck, serveUsers } from "./user-volumes.ts";
import { createVolumeService } from "./volume-service.ts";

const audience = "connectors-proxy";
const nodeId = "standalone";
/** Hosts that tools on this machine connect to directly, past the proxy. */
const noProxy = ["localhost", "127.0.0.1", "::1"];

/**
 * Starts csi and proxy in one process, over a folder of YAML.
 * @throws Error with what to do, where it can't start; whatever had been started is stopped again by then
 */
export async function startStandalone(settings: StandaloneSettings, log: Log): Promise<Role> {
  const undo: Undo[] = [];
  const stop = async (graceMs: number): Promise<void> => {
    for (const action of undo.splice(0).reverse()) await action(graceMs);
  };
  try {
    await start(settings, log, undo);
  } catch (error) {
    await stop(0);
    throw error;
  }
  return { stop: () => stop(settings.graceMs) };
}

/** Stops something that was started. What is under way in it may take the given time. */
type Undo = (graceMs: number) => Promise<unknown>;

async function start(settings: StandaloneSettings, log: Log, undo: Undo[]): Promise<void> {
  await checkMountSupport(process.env.PATH ?? "");
  const egress = await egressOf(settings.egress);
  const now = Date.now;
  const users = await findAllowedUsers(settings.allowed, createUserDatabase());
  const folder = await openConnectorFolder({ folder: settings.connectors, log });
  undo.push(() => folder.stop());
  refuseBrokenFolder(folder);
  if (folder.contents().connectors.size === 0) {
    log("warning", "the connectors folder has no Connector yet", { file: folder.path });
  }
  undo.push(onHangup(folder.reload));
  const state = await openStateFolder({
    folder: settings.state,
    log,
    now,
    pid: process.pid,
    async beforeCreation() {
      await checkSocketPlace(settings.socket);
      await checkAddresses(settings.listen);
    },
  });
  undo.unshift(() => state.close()); // last of all, so that whoever locks the state folder next finds nothing of this process at work

  // Volumes need the proxy's addresses, so the proxy starts first. Its verifier of tokens waits for the keeper.
  const keeperStarted = Promise.withResolvers<VolumeKeeper<PublishRequest>>();
  let keeper: VolumeKeeper<PublishRequest> | undefined;
  const tokens = { key: state.tokenKey, audience, now };
  const verify = createTokenVerifier({
    ...tokens,
    admits: (volumeId, mount) => keeper?.admits(volumeId, mount) ?? false,
  });
  const platform = { findConnector: findInFolder(folder), mayUse: mayUseNamed };
  const identities = createMachineIdentities(settings, egress, log);
  undo.push(async () => identities.stop());
  const issueLeaf = await createLeafIssuer(state.authority);
  const proxy = await startProxy({
    ...platform,
    listen: settings.listen,
    readUpstreamSecrets: withIdentityLogins(
      secretsInFolder(folder),
      identities.store,
      identities.sourceOf,
    ),
    verifyToken: (token) =>
      keeper === undefined ? keeperStarted.promise.then(() => verify(token)) : verify(token),
    connectorOfHost: () => undefined,
    leafIssuer: () => issueLeaf,
    servesName: (name) =>
      name === "localhost" || settings.listen.some(({ host }) => host.toLowerCase() === name),
    sealKeys: () => [state.sealKey],
    tunnels: settings.tunnels,
    egress,
    ownAddresses: interfaceAddresses,
    now,
    observer: createProxyObserver(log),
    log,
  }).catch(explainListening);
  undo.push((graceMs) => proxy.stop(graceMs));

  const node = createVolumeNode({
    ...platform,
    audience,
    proxyHostsOf: listenerHosts(hostsOf(proxy.addresses)),
    caCertificate: () => state.authority.certificate,
    rootCertificates,
    noProxy,
    toolsSeeTargetPath: true,
    mounts: systemMounts,
    // While the keeper starts, it unmounts what it knows, and nobody else can ask yet.
    mayRemoveUnrecorded: (volumeId) => keeper?.knows(volumeId) ?? true,
    now,
    log,
  });
  keeper = await startVolumeKeeper<PublishRequest>({
    publish: node.publish,
    refresh: node.refresh,
    end: node.end,
    resolveTarget: (path) => resolveTarget("target_path", path),
    mountPoints: async () => ownMountPoints(await systemMounts.readMountInfo()),
    hasFiles,
    ...createUserFolders(systemMounts),
    allows: users.allows,
    bootId,
    processStart,
    records: createVolumeRecordStore(state.volumesFolder),
    signToken: createTokenSigner({ ...tokens, newTokenId: randomUUID }),
    audience,
    tokenLifetimeSeconds: settings.tokenLifetimeSeconds,
    now,
    createMountId: randomUUID,
    every,
    log,
  });
  undo.push(() => keeper.stop());
  keeperStarted.resolve(keeper);
  folder.onChange(keeper.connectorsChanged);

  const started = keeper;
  const caller = { uid: process.getuid?.() ?? 0 }; // nobody else may open the socket
  const whyNot = createUserRequestCheck({
    allows: users.allows,
    findConnector: platform.findConnector,
    processUser,
  });
  const serviceFor = (caller: Caller, unary: Unary) =>
    createVolumeService({
      keeper: started,
      caller,
      runFolder: settings.runFolder,
      whyNot,
      unary,
    });
  const csi = await serveCsi({
    socketPath: settings.socket,
    node: keptNode(node, keeper, caller),
    nodeId,
    version,
    isReady: () => true,
    graceMs: settings.graceMs,
    log,
    addServices: (server, unary) =>
      server.addService(volumes.Volumes.service, serviceFor(caller, unary)),
  });
  undo.push(() => csi.stop());
  const { runFolder, graceMs } = settings;
  undo.push(await serveUsers({ uids: users.uids, runFolder, serviceFor, graceMs, log }));
  log("info", "ready", {
    address: proxy.addresses.map(urlOf).join(" "),
    connectors: [...folder.contents().connectors.keys()].join(","),
  });
}

/**
 * Refuses a folder of which nothing can be used. A service manager then sees a start that has failed, as after any other
 * error of the settings, and not a process that is ready and refuses everything. An empty folder is none of that: its
 * connectors may come later.
 */
function refuseBrokenFolder({ path, contents }: ConnectorFolder): void {
  const { connectors, broken } = contents();
  const [file, problems] = [...broken][0] ?? [];
  if (connectors.size > 0 || file === undefined) return;
  throw new Error(
    `${path} has no Connector that can be used (${file}: ${problems?.join("; ")}): correct its files; "oci-connector check ${path}" says all that is wrong`,
  );
}

/** Does something at each SIGHUP. @returns what ends that */
function onHangup(action: () => Promise<void>): () => Promise<void> {
  const listener = (): void => void action();
  process.on("SIGHUP", listener);
  return async () => void process.off("SIGHUP", listener);
}

/** The csi room's volumes, with the keeper in the kubelet's place. */
const keptNode = (
  node: VolumeNode,
  keeper: VolumeKeeper<PublishRequest>,
  caller: Caller,
): VolumeNode => ({
  stats: node.stats,
  async publish(request, signal) {
    const result = await keeper.publish(caller, request, signal);
    if (!result.ok) throw invalidArgument(result.reason);
  },
  async unpublish(request) {
    const result = await keeper.unpublish(caller, request);
    if (!result.ok) throw notFound(result.reason);
  },
});

const hostsOf = (addresses: readonly ListenAddress[]): Pick<ProxyHosts, "http" | "https"> =>
  Object.fromEntries(addresses.map((address) => [address.scheme, hostAndPort(address)]));

const hostAndPort = ({ host, port }: ListenAddress): string => `${withBrackets(host)}:${port}`;

const urlOf = (address: ListenAddress): string => `${address.scheme}://${hostAndPort(address)}`;
