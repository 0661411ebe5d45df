import { chmod, rename } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect } from "chai";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "../../src/csi/generated/csi/v1/NodePublishVolumeRequest.ts";
import type { NodeUnpublishVolumeRequest__Output as UnpublishRequest } from "../../src/csi/generated/csi/v1/NodeUnpublishVolumeRequest.ts";
import { invalidArgument, unavailable } from "../../src/csi/rpc-error.ts";
import { serveCsi } from "../../src/csi/server.ts";
import type { SocketServer } from "../../src/csi/socket-server.ts";
import { publishVolume, unpublishVolume } from "../support/csi-calls.ts";
import { makeFolder, removeFolder, requireOtherUsers } from "./csi-driver.ts";

describe("CSI client", () => {
  let folder: string;
  let socketPath: string;
  let server: SocketServer | undefined;
  const requests: (PublishRequest | UnpublishRequest)[] = [];
  let handle: () => Promise<void>;

  beforeEach(async () => {
    folder = await makeFolder();
    socketPath = join(folder, "csi.sock");
    requests.length = 0;
    handle = async () => undefined;
    server = undefined;
  });
  afterEach(async () => {
    await server?.stop();
    await removeFolder(folder);
  });

  const serve = async () => {
    const take = (request: PublishRequest | UnpublishRequest) => {
      requests.push(request);
      return handle();
    };
    server = await serveCsi({
      socketPath,
      node: { publish: take, unpublish: take, stats: () => Promise.reject(new Error("none")) },
      nodeId: "node-1",
      version: "1.2.3",
      isReady: () => true,
      graceMs: 1_000,
      log: () => undefined,
    });
  };
  const volume = { volumeId: "v", targetPath: "/t" };
  const publish = () =>
    publishVolume(socketPath, {
      ...volume,
      namespace: "default",
      attributes: { connectors: "harbor", "csi.storage.k8s.io/pod.namespace": "forged" },
      mountGroup: "2000",
    });
  const messageOf = (call: Promise<void>): Promise<string> =>
    call.then(
      () => "no error",
      (error) => error.message,
    );

  it("asks as the kubelet does", async () => {
    await serve();
    await publish();
    await unpublishVolume(socketPath, volume);
    const [published, unpublished] = requests;
    expect(published).to.deep.include({ ...volume, readonly: true, secrets: {} });
    expect(published).to.have.property("volumeContext").that.deep.equals({
      connectors: "harbor",
      "csi.storage.k8s.io/ephemeral": "true",
      "csi.storage.k8s.io/pod.namespace": "default",
    });
    expect(published).to.have.nested.property("volumeCapability.mount.volumeMountGroup", "2000");
    expect(unpublished).to.deep.equal(volume);
  });

  it("fails with what the driver says", async () => {
    await serve();
    handle = () => Promise.reject(unavailable('connector "a" is away: wait'));
    expect(await messageOf(publish())).to.equal('connector "a" is away: wait');
  });

  it("says in the words of the command line what the driver says in those of CSI", async () => {
    await serve();
    handle = () => Promise.reject(invalidArgument('target_path: found "/x"; target_path "/y": no'));
    expect(await messageOf(publish())).to.equal('TARGET: found "/x"; TARGET "/y": no');
    handle = () => Promise.reject(new Error("a secret"));
    expect(await messageOf(publish())).to.equal("the process failed; its log has the cause");
  });

  it("says what to do where there is no socket", async () => {
    const message = await messageOf(unpublishVolume(socketPath, volume));
    expect(message).to.equal(
      `can't connect to ${socketPath} (ENOENT): is \`oci-connector standalone\` running?`,
    );
  });

  it("says what to do where nobody listens any more", async () => {
    const stale = createServer();
    const other = join(folder, "other.sock");
    await new Promise<void>((resolve) => stale.listen(other, resolve));
    await rename(other, socketPath);
    await new Promise((resolve) => stale.close(resolve));
    expect(await messageOf(publish()))
      .to.include("ECONNREFUSED")
      .and.include("running?");
  });

  it("says what the operator has to allow where the socket is somebody else's", async function () {
    await requireOtherUsers(this);
    await serve();
    await chmod(folder, 0o700);
    const uid = process.geteuid?.();
    process.seteuid?.(65534);
    try {
      const message = await messageOf(publish());
      expect(message)
        .to.include("EACCES")
        .and.match(/has not allowed user (\S+) any connector: .* --allow \1=NAMESPACE\/NAME$/);
    } finally {
      process.seteuid?.(uid ?? 0);
    }
  });
});
