/** What a volume opens, for how long, and what the command line says of it. */
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { volumeIdOf } from "../../src/standalone/volume-records.ts";
import { cleanup } from "../support/cleanup.ts";
import { publishVolume, unpublishVolume } from "../support/csi-calls.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { plainRequest } from "../support/plain-request.ts";
import { type CiHost, runCommand, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

/** A command and its arguments. */
type Arguments = readonly [command: string, ...rest: string[]];

describe("standalone mode: volumes", function () {
  this.timeout(30_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let host: CiHost;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    host = resources.add(await startCiHost());
    host.keepSecret("the registry's password", login.password);
    const address = registry.url;
    const refs = ["team-a/hub", "team-a/other", "team-b/hub", "default/hub"];
    const documents = refs.map((ref) => connectorYaml({ ref, address, login }));
    await host.write("all.yaml", documents.join("\n---\n"));
    await host.waitForLog("connectors were added, removed or changed", "team-b/hub");
  });
  afterEach(async () => {
    const mounts = await mountsBelow(host.folder);
    await Promise.all(mounts.map(({ path }) => host.unmount(path)));
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    for (const token of registry.auth.tokens.keys()) host.keepSecret(token.slice(0, 12), token);
    expect(await host.leaks()).to.deep.equal([]);
  });
  after(resources.stop);

  /** What a pull of the manifest comes to: `200`, or the status with the error's message. */
  async function pull(volume: Volume, connector: string): Promise<string> {
    const { status, body } = await volume.request("GET", connector, "app/manifests/1");
    return status === 200 ? "200" : `${status} ${JSON.parse(body.toString()).errors[0].message}`;
  }
  /** Ends with this status, and these words in one line. */
  const endsWith =
    (wanted: number) =>
    async (args: Arguments, ...words: readonly string[]): Promise<void> => {
      const { status, stdout, stderr } = await host.run(...args);
      expect({ status, stdout }).to.deep.equal({ status: wanted, stdout: "" });
      for (const word of words) expect(stderr).to.include(word);
      expect(stderr).to.match(/^oci-connector: .*\n$/);
    };
  const refuses = endsWith(1);
  const misuses = endsWith(64);
  const at = (name: string): string => join(host.folder, name);

  it("open the connectors that they name, and no other", async () => {
    const [one, two, unqualified] = await Promise.all([
      host.mount("one", "team-a/hub"),
      host.mount("two", "hub,team-b/hub", "--namespace", "team-a"),
      host.mount("unqualified", "hub"),
    ]);
    expect(await pull(one, "team-a/hub")).to.equal("200");
    expect(await pull(one, "team-a/other")).to.equal(
      "403 this volume opens team-a/hub, not team-a/other: mount a volume that names it",
    );
    expect(await pull(one, "team-b/hub")).to.match(/^403 this volume opens team-a\/hub, not /);
    expect(await pull(one, "team-z/none")).to.match(/^403 this volume opens team-a\/hub, not /);
    expect(await pull(two, "team-a/hub")).to.equal("200");
    expect(await pull(two, "team-b/hub")).to.equal("200");
    expect(await pull(two, "default/hub")).to.match(/^403 .* opens team-a\/hub, team-b\/hub, not /);
    expect(await pull(unqualified, "default/hub")).to.equal("200");
    expect(await pull(unqualified, "team-a/hub")).to.match(/^403 /);
  });

  it("name every connector in their files, the last one as the proxy's address", async () => {
    const volume = await host.mount(
      ...(["both", "team-a/hub,team-b/hub", "--configuration", "docker-config,buildkitd"] as const),
      "--params",
      JSON.stringify({ buildkitd: { mirror: true } }),
    );
    expect(await volume.read("connector.status.proxyAddress")).to.equal(
      `https://${host.https}/namespaces/team-b/connectors/hub`,
    );
    const { auths } = JSON.parse(await volume.read("config.json"));
    expect(Object.keys(auths)).to.have.members([host.http, host.https]);
    const toml = await volume.read("buildkitd.toml");
    for (const ref of ["team-a/connectors/hub", "team-b/connectors/hub"]) {
      expect(toml).to.include(`${host.https}/namespaces/${ref}`);
    }
    expect(toml).to.include(join(volume.path, "ca.crt"));
  });

  it("have a token that is taken as Basic of any user, and as Bearer", async () => {
    const volume = await host.mount("volume", "team-a/hub");
    const basic = (user: string): string =>
      `Basic ${Buffer.from(`${user}:${volume.token}`).toString("base64")}`;
    for (const authorization of [basic("any"), basic("x:y"), `Bearer ${volume.token}`]) {
      const headers = { authorization };
      const { status } = await volume.request("GET", "team-a/hub", "app/manifests/1", { headers });
      // RFC 7617: a user has no colon, so what follows the first one is the password.
      expect(status, authorization.slice(0, 8)).to.equal(
        authorization === basic("x:y") ? 401 : 200,
      );
    }
    const refused = await plainRequest(`http://${host.http}/v2/`);
    expect(refused).to.have.property("status", 401);
    expect(refused.headers["www-authenticate"]).to.match(/^Basic realm="[^"]+"$/);
  });

  it("close with their unmount: the token is refused, also after the next mount", async () => {
    const first = await host.mount("volume", "team-a/hub");
    expect(await pull(first, "team-a/hub")).to.equal("200");
    await host.unmount("volume");
    const refusal = /^401 the volume of this token is not mounted any more: mount it/;
    expect(await pull(first, "team-a/hub")).to.match(refusal);

    const second = await host.mount("volume", "team-a/hub");
    expect(second.token).not.to.equal(first.token);
    expect(await pull(second, "team-a/hub")).to.equal("200");
    expect(await pull(first, "team-a/hub")).to.match(refusal);

    const wider = await host.mount("volume", "team-a/hub,team-b/hub", "--replace");
    expect(await pull(second, "team-a/hub")).to.match(refusal);
    expect(await pull(wider, "team-b/hub")).to.equal("200");
    expect(await mountsBelow(host.folder)).to.have.lengthOf(1);
  });

  it("stay as they are when another mount is asked for at their place, or the same by CSI", async () => {
    const first = await host.mount("volume", "team-a/hub");
    const before = await mountsBelow(host.folder);
    await refuses(["mount", "volume", "--connectors", "team-a/hub"], "--replace", "unmount that");
    await refuses(
      ["mount", "volume/inside", "--connectors", "team-a/hub", "--replace", "--force"],
      `lies in the volume that is mounted at "${first.path}"`,
    );
    const request = { volumeId: volumeIdOf(first.path), targetPath: first.path };
    const attributes = {
      connectors: "team-a/hub",
      "configuration.names": "",
      "configuration.params": "",
      "token.expiration": "",
    };
    const asked = { ...request, namespace: "default", attributes, mountGroup: "0" };
    await publishVolume(join(host.state, "csi.sock"), asked);
    expect(await mountsBelow(host.folder)).to.deep.equal(before);
    expect(await pull(first, "team-a/hub")).to.equal("200");
    expect(await first.read("context.token")).not.to.equal(first.token);
  });

  it("don't open another process, nor does any text that is no token", async () => {
    const stranger = await startCiHost();
    try {
      const connector = connectorYaml({ ref: "team-a/hub", address: registry.url, login });
      await stranger.write("hub.yaml", connector);
      await stranger.waitForLog("connectors were added, removed or changed");
      const { token } = await stranger.mount("volume", "team-a/hub");
      const volume = await host.mount("volume", "team-a/hub");
      const withToken = async (text: string): Promise<string> => {
        const headers = { authorization: `Bearer ${text}` };
        const options = { headers };
        const { status, body } = await volume.request(
          "GET",
          "team-a/hub",
          "app/manifests/1",
          options,
        );
        return `${status} ${body.includes(text) ? "and shows it" : body}`;
      };
      expect(await withToken(token)).to.match(/^401 .*signed with another key/);
      const [head, payload, signature] = volume.token.split(".");
      const none = Buffer.from('{"alg":"none"}').toString("base64url");
      for (const forged of [
        `${head}.${payload}.`,
        `${none}.${payload}.`,
        `${none}.${payload}.${signature}`,
        volume.token.slice(0, -4),
        "nonsense-of-a-length",
        `${volume.token}x`,
      ]) {
        expect(await withToken(forged)).to.match(/^401 .*(is not a token|another key)/);
      }
      host.keepSecret("another host's token", token);
    } finally {
      await stranger.stop();
    }
  });

  it("are read by the group that is named, and else by the caller's", async () => {
    const [ofGroup, ofCaller] = await Promise.all([
      host.mount("of-group", "team-a/hub", "--group", "12345"),
      host.mount("of-caller", "team-a/hub"),
    ]);
    const rights = async (path: string): Promise<string> => {
      const { uid, gid, mode } = await stat(path);
      return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
    };
    expect(await rights(join(ofGroup.path, "context.token"))).to.equal("0:12345 440");
    expect(await rights(ofGroup.path)).to.equal("0:12345 750");
    expect(await rights(join(ofCaller.path, "context.token"))).to.equal("0:0 440");
  });

  it("are found by any way to their folder", async () => {
    await mkdir(at("real folder, ü"));
    await symlink("real folder, ü", at("link"));
    const volume = await host.mount("link/volume", "team-a/hub");
    const real = at("real folder, ü/volume");
    expect((await mountsBelow(host.folder)).map(({ path }) => path)).to.deep.equal([real]);
    const unmounted = await host.run("unmount", "./real folder, ü/../link/volume");
    expect(unmounted).to.include({ status: 0, stdout: `unmounted ${real}\n` });
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    expect(await pull(volume, "team-a/hub")).to.match(/^401 /);
    await rm(at("link"));
    await rm(at("real folder, ü"), { recursive: true });
  });

  it("are missed where there is none to unmount", async () => {
    await host.mount("volume", "team-a/hub");
    await host.unmount("volume");
    const [gone, nothing] = [at("volume"), at("no/such/folder/volume")];
    await Promise.all([
      refuses(
        ["unmount", "volume"],
        `no volume is mounted at "${gone}"`,
        '"oci-connector volumes"',
      ),
      refuses(["unmount", "no/such/folder/volume"], `no volume is mounted at "${nothing}"`),
    ]);
  });

  it("are taken away by their own id and path alone", async () => {
    const [one, two] = await Promise.all([
      host.mount("one", "team-a/hub"),
      host.mount("two", "team-a/other"),
    ]);
    const empty = at("empty");
    await mkdir(empty);
    const before = await mountsBelow(host.folder);
    const ask = (volumeId: string, targetPath: string): Promise<string> =>
      unpublishVolume(join(host.state, "csi.sock"), { volumeId, targetPath }).then(
        () => "done",
        (error: Error) => error.message,
      );
    const idOfTwo = volumeIdOf(two.path);
    expect(await ask(idOfTwo, one.path)).to.include(`"${idOfTwo}" is mounted at "${two.path}"`);
    expect(await ask(idOfTwo, empty)).to.include(`not at "${empty}"`);
    expect(await ask("stranger", one.path)).to.include(
      `holds the volume "${volumeIdOf(one.path)}", not "stranger"`,
    );
    expect(await ask("stranger", empty)).to.equal("done");
    expect(await mountsBelow(host.folder)).to.deep.equal(before);
    expect(await readdir(empty)).to.deep.equal([]);
    expect(await pull(one, "team-a/hub")).to.equal("200");
    expect(await pull(two, "team-a/other")).to.equal("200");
    await rm(empty, { recursive: true });
  });

  it("are refused where something is wrong with what is asked", async () => {
    await copyFile("/etc/hostname", at("file"));
    await Promise.all([
      refuses(
        ["mount", "v1", "--connectors", "team-a/hup"],
        ...[
          'connector "team-a/hup" not found',
          "default/hub, team-a/hub, team-a/other, team-b/hub",
        ],
      ),
      misuses(
        ["mount", "v2", "--connectors", "team-a/hub", "--configuration", "docker,!x y"],
        '--configuration: found "docker", wanted one of docker-config, registry-config, buildkitd',
        '--configuration: found "!x y"',
      ),
      misuses(
        [
          "mount",
          "v3",
          "--connectors",
          "a/b/c",
          "--params",
          "{",
          "--token-expiration",
          "8761h",
          "--group",
          "4294967295",
        ],
        '--connectors: found "a/b/c"',
        '--params: found "{"',
        '--token-expiration: found "8761h"',
        '--group: found "4294967295"',
      ),
      misuses(["mount", "v4"], "--connectors: found nothing"),
      refuses(
        ["mount", "v5", "--connectors", "team-a/hub", "--configuration", "!config.json"],
        '--configuration: found "!config.json", wanted a file of this volume',
      ),
      refuses(
        ["mount", "no/folder/volume", "--connectors", "team-a/hub"],
        `${at("no/folder")} can't be accessed (ENOENT): create that folder first`,
      ),
      refuses(
        ["mount", "file", "--connectors", "team-a/hub"],
        `TARGET "${at("file")}": found a file, wanted a folder`,
      ),
      refuses(
        ["mount", "file/volume", "--connectors", "team-a/hub"],
        "its parent folder does not exist; create it",
      ),
      refuses(
        ["mount", "/proc/nope", "--connectors", "team-a/hub"],
        'TARGET: found "/proc/nope", wanted a path where a folder can be (ENOENT: ',
      ),
      refuses(
        ["mount", "n".repeat(256), "--connectors", "team-a/hub"],
        "wanted a path where a folder can be (ENAMETOOLONG: a name of more than 255 bytes",
      ),
      refuses(
        ["mount", "/", "--connectors", "team-a/hub"],
        'TARGET: found "/", wanted an absolute, normalised path of a folder below /',
      ),
    ]);
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    expect(await readdir(join(host.state, "volumes"))).to.deep.equal([]);
    expect(await stat(at("file")).then((found) => found.isFile())).to.equal(true);
    await rm(at("file"));
  });

  it("have no Pod in the log", async () => {
    await host.mount("logged", "team-a/hub");
    await host.unmount("logged");
    const lines = host.logged("volume published", at("logged"));
    expect(lines).not.to.deep.equal([]);
    for (const line of lines) expect(JSON.parse(line)).not.to.have.property("pod");
  });

  it("don't hide a folder's files behind their mount for good", async () => {
    await mkdir(at("used"));
    await writeFile(at("used/notes"), "mine");
    await refuses(["mount", "used", "--connectors", "team-a/hub"], "has files in it", "--force");
    await host.mount("used", "team-a/hub", "--force");
    expect(await readdir(at("used"))).not.to.include("notes");
    await host.unmount("used");
    expect(await readdir(at("used"))).to.deep.equal(["notes"]);
  });

  it("leave what others have mounted alone", async () => {
    const volume = await host.mount("volume", "team-a/hub");
    await mkdir(at("theirs"));
    execFileSync("mount", ["-t", "tmpfs", "theirs", at("theirs")]);
    try {
      const commands: Arguments[] = [
        ["mount", "theirs", "--connectors", "team-a/hub"],
        ["unmount", "theirs"],
      ];
      for (const command of commands) {
        const { status, stderr } = await host.run(...command);
        expect(status).to.equal(1);
        expect(stderr).to.include("found a mount of tmpfs (theirs)");
      }
    } finally {
      execFileSync("umount", [at("theirs")]);
    }
    expect(await pull(volume, "team-a/hub")).to.equal("200");
  });

  it("can't be had where no process runs", async () => {
    const { status, stderr } = await runCommand(["unmount", "v", "--state", at("no-state")]);
    expect(status).to.equal(1);
    expect(stderr).to.equal(
      `oci-connector: can't connect to ${at("no-state/csi.sock")} (ENOENT): is \`oci-connector standalone\` running?\n`,
    );
  });
});
