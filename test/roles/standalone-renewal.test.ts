/** The token of a mounted volume as time goes by. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { decodeJwt } from "jose";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

describe("standalone mode: the renewal of tokens", function () {
  this.timeout(30_000);
  const resources = cleanup();
  after(resources.stop);

  it("puts a new token into a mounted volume long before the old one expires", async () => {
    const registry = resources.add(await startFakeRegistry());
    const clock = new URL("./jumping-clock.ts", import.meta.url).pathname;
    const args = ["--token-lifetime", "10m"];
    const host = resources.add(await startCiHost({ args, nodeArgs: [`--import=${clock}`] }));
    await host.write("hub.yaml", connectorYaml({ ref: "team-a/hub", address: registry.url }));
    await host.waitForLog("connectors were added, removed or changed");
    const volume = await host.mount("volume", "team-a/hub", "--configuration", "docker-config");
    const longer = await host.mount("longer", "team-a/hub", "--token-expiration", "1h");
    const before = await mountsBelow(host.folder);

    const timePasses = (): void => void process.kill(host.program().pid, "SIGUSR2");
    const tokenIn = ({ path }: Volume): Promise<string> =>
      readFile(join(path, "context.token"), "utf8");
    const ask = async (token: string): Promise<string> => {
      const headers = { authorization: `Bearer ${token}` };
      const { status, body } = await volume.request("GET", "team-a/hub", "/v2/", { headers });
      return `${status} ${body}`;
    };
    const isRenewed = async (token: string): Promise<string | undefined> => {
      const found = await tokenIn(volume);
      return found === token ? undefined : found;
    };
    const renewed = (token: string): Promise<string> =>
      eventually(
        () => isRenewed(token),
        () => "the token is not renewed",
      );

    const { iat = 0, exp = 0 } = decodeJwt(volume.token);
    expect(exp - iat).to.equal(600);
    timePasses(); // a quarter of its life, and a little more
    const second = await renewed(volume.token);
    expect(Number(decodeJwt(second).exp) - exp).to.be.within(150, 300);
    const { auths } = JSON.parse(await volume.read("config.json"));
    const [entry] = Object.values<{ auth: string }>(auths);
    expect(Buffer.from(entry?.auth ?? "", "base64").toString()).to.match(
      new RegExp(`^[^:]+:${second}$`),
    );
    expect(await ask(volume.token), "for who has read it already").to.match(/^200 /);
    expect(await ask(second)).to.match(/^200 /);

    let latest = second;
    for (let passed = 0; passed < 3; passed += 1) {
      timePasses();
      latest = await renewed(latest);
    }
    expect(await ask(volume.token)).to.match(/^401 .*this token has expired: read it from the/);
    expect(await ask(latest)).to.match(/^200 /);
    expect(await tokenIn(longer), "a quarter of an hour has not passed").to.equal(longer.token);
    expect(await mountsBelow(host.folder)).to.deep.equal(before);

    // Nobody renews while the process is down; the next one does so first of all.
    await host.program().stop();
    await host.start();
    const newest = await renewed(latest);
    expect(await ask(newest)).to.match(/^200 /);
    for (const [name, token] of Object.entries({ second, latest, newest })) {
      host.keepSecret(`the ${name} token`, token);
    }
    await Promise.all(["volume", "longer"].map(host.unmount));
    expect(await ask(newest)).to.match(/^401 .*not mounted any more/);
    expect(await host.leaks()).to.deep.equal([]);
  });
});
