/** What blind tunnels cost, and that tools get through them: in a real process, with the real setting. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../src/certificate-authority.ts";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { runProgram } from "../support/program.ts";
import { openRaw, type RawConnection } from "../support/raw-request.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

const names = fileURLToPath(new URL("names-of-test.ts", import.meta.url));
const run = promisify(execFile);

describe("standalone mode: blind tunnels", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let host: CiHost;
  let volume: Volume;

  before(async () => {
    host = resources.add(
      await startCiHost({
        nodeArgs: [`--import=${names}`],
        args: ["--tunnel", "git.test,idle.test"],
      }),
    );
    await host.write("hub.yaml", connectorYaml({ ref: "team-a/hub", address: "https://hub.test" }));
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", "team-a/hub");
  });
  after(resources.stop);

  it("let git clone a repository, by the certificate of its own host, over HTTP and TLS to the proxy", async () => {
    await requirePrograms(["git"]);
    const folder = resources.add(makeTempFolder("git")).path;
    const git = (...args: readonly string[]) =>
      run("git", ["-c", "user.name=x", "-c", "user.email=x@example.com", ...args], { cwd: folder });
    await git("init", "--quiet", "work");
    await writeFile(join(folder, "work", "file"), "content\n");
    await git("-C", "work", "add", "file");
    await git("-C", "work", "commit", "--quiet", "--message", "one");
    await git("clone", "--quiet", "--bare", "work", "bare.git");
    await git("-C", "bare.git", "update-server-info");

    const authority = await createAuthority("of the host", new Date());
    const { certificate, privateKey } = await (await createLeafIssuer(authority))(
      "git.test",
      new Date(),
    );
    const server = createTlsServer({ cert: certificate, key: privateKey }, (request, response) => {
      const [path = ""] = (request.url ?? "").split("?", 1);
      readFile(join(folder, path)).then(
        (bytes) => response.end(bytes),
        () => response.writeHead(404).end(),
      );
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    resources.defer(() => server.close());
    const { port } = server.address() as AddressInfo;
    const ca = join(folder, "ca.crt");
    await writeFile(ca, authority.certificate);
    const proxy = await volume.read("https.proxy");
    const secure = proxy.replace(/^http:(.*)@.*$/, `https:$1@${host.https}`);
    for (const [name, https_proxy] of Object.entries({ proxy, secure })) {
      const env = { https_proxy, GIT_SSL_CAINFO: ca, HOME: folder };
      const trust = { GIT_PROXY_SSL_CAINFO: join(volume.path, "ca.crt") };
      const args = ["clone", "--quiet", `https://git.test:${port}/bare.git`, name];
      const cloned = await runProgram("git", args, { cwd: folder, env: { ...env, ...trust } });
      expect(cloned, name).to.include({ status: 0, stderr: "" });
      expect(await readFile(join(folder, name, "file"), "utf8")).to.equal("content\n");
    }
    await eventually(
      () => host.logged('"method":"CONNECT"', `"host":"git.test:${port}"`, '"allowed"').length > 0,
      () => "there is no report",
    );
  });

  it("cost less than 50 KiB each, while hundreds of them are idle", async () => {
    let taken = 0;
    const server = createServer((socket) => {
      taken += 1;
      socket.on("error", () => undefined);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    resources.defer(() => server.close());
    const to = `idle.test:${(server.address() as AddressInfo).port}`;
    const user = Buffer.from(`team-a/hub:${volume.token}`).toString("base64");
    const port = Number(host.http.split(":")[1]);
    const tunnels: RawConnection[] = [];
    resources.defer(() => tunnels.map((tunnel) => tunnel.stop()));
    const open = async (count: number): Promise<void> => {
      for (let opened = 0; opened < count; opened += 50) {
        const some = Array.from({ length: 50 }, async () => {
          const tunnel = await openRaw({ port });
          tunnels.push(tunnel);
          tunnel.send(
            `CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\nProxy-Authorization: Basic ${user}\r\n\r\n`,
          );
          await tunnel.waitFor(/^HTTP\/1.1 200 /);
        });
        await Promise.all(some);
      }
    };
    const resident = async (): Promise<number> => {
      const status = await readFile(`/proc/${host.program().pid}/status`, "utf8");
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
    };
    // What is allocated once for all, and by the first ones.
    await open(200);
    for (const tunnel of tunnels.splice(0)) tunnel.stop();
    const before = await resident();
    await open(500);
    await eventually(
      () => taken === 700,
      () => `${taken} connections have come`,
    );
    const each = ((await resident()) - before) / 500;
    expect(each).to.be.below(50);
  });
});
