import { join } from "node:path";
import { credentials } from "@grpc/grpc-js";
import { expect } from "chai";
import type { PluginInfo__Output as PluginInfo } from "../../src/csi/generated/pluginregistration/PluginInfo.ts";
import type { RegistrationClient } from "../../src/csi/generated/pluginregistration/Registration.ts";
import {
  type PluginRegistration,
  servePluginRegistration,
} from "../../src/csi/plugin-registration.ts";
import { pluginRegistration } from "../../src/csi/proto.ts";
import { createLog } from "../../src/log.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

describe("the CSI driver's registration with the kubelet", () => {
  const resources = cleanup();
  const lines: string[] = [];
  let registrations: number;
  let registration: PluginRegistration;
  let kubelet: RegistrationClient;

  beforeEach(async () => {
    const folder = resources.add(makeTempFolder("registration")).path;
    const socketPath = join(folder, "connectors-csi-reg.sock");
    registration = resources.add(
      await servePluginRegistration({
        socketPath,
        csiSocketPath: "/var/lib/kubelet/plugins/connectors-csi/csi.sock",
        graceMs: 1_000,
        onRegistered: () => {
          registrations += 1;
        },
        log: createLog(
          (line) => lines.push(line),
          () => 0,
        ),
      }),
    );
    kubelet = new pluginRegistration.Registration(
      `unix:${socketPath}`,
      credentials.createInsecure(),
    );
    resources.defer(() => kubelet.close());
    lines.length = 0;
    registrations = 0;
  });
  afterEach(resources.stop);

  const getInfo = (): Promise<PluginInfo | undefined> =>
    new Promise((resolve, reject) => {
      kubelet.getInfo({}, (error, info) => (error === null ? resolve(info) : reject(error)));
    });
  const notify = (pluginRegistered: boolean, error = ""): Promise<void> =>
    new Promise((resolve, reject) => {
      kubelet.notifyRegistrationStatus({ pluginRegistered, error }, (failure) =>
        failure === null ? resolve() : reject(failure),
      );
    });

  it("says what the driver is and where", async () => {
    expect(await getInfo()).to.deep.equal({
      type: "CSIPlugin",
      name: "connectors-csi",
      endpoint: "/var/lib/kubelet/plugins/connectors-csi/csi.sock",
      supportedVersions: ["1.0.0"],
    });
  });

  it("counts once the kubelet has said so, and not because it was asked", async () => {
    await getInfo();
    expect(registration.isRegistered()).to.equal(false);
    expect(registrations).to.equal(0);
    await notify(true);
    expect(registration.isRegistered()).to.equal(true);
    expect(registrations).to.equal(1);
  });

  it("logs why the kubelet has refused to register the driver, and each change once", async () => {
    await notify(true);
    await notify(true);
    await notify(false, "a driver of that name is there");
    expect(registration.isRegistered()).to.equal(false);
    expect(lines.map((line) => JSON.parse(line).reason)).to.deep.equal([
      undefined,
      "a driver of that name is there",
    ]);
  });
});
