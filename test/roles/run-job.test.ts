/** The command `run`: a job's whole life with a volume of its own. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect } from "chai";
import { parse } from "smol-toml";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { type Clients, prepareClients } from "../support/clients.ts";
import { type DockerRegistry, startDockerRegistry } from "../support/docker-registry.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { writeTestImage } from "../support/oci-image.ts";
import { type Outcome, type RunningProgram, startProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type CiHost, startCiHost } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { mountsBelow } from "./mount-table.ts";

describe("oci-connector run", function () {
  this.timeout(30_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let host: CiHost;
  /** Where `run` and its commands put temporary files. */
  let temporary: string;

  before(async () => {
    await requirePrograms(["script", "curl"]);
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    host = resources.add(await startCiHost());
    host.keepSecret("the registry's password", login.password);
    await host.write(
      "hub.yaml",
      connectorYaml({ ref: "team-a/hub", address: registry.url, login }),
    );
    await host.waitForLog("connectors were added, removed or changed");
  });
  beforeEach(() => {
    temporary = resources.add(makeTempFolder("jobs")).path;
  });
  afterEach(async () => {
    const left = async (): Promise<readonly unknown[]> => [
      ...(await mountsBelow(host.folder)),
      ...(await readdir(join(host.state, "volumes"))),
      ...(await readdir(join(host.folder, "run"))),
    ];
    await eventually(
      async () => (await left()).length === 0,
      () => "a mount, a record or a folder is left",
    );
    expect(await host.leaks()).to.deep.equal([]);
  });
  after(resources.stop);

  const connectors = ["--connectors", "team-a/hub"];
  const start = (
    script: string,
    options: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Promise<RunningProgram> =>
    host.startJob([...connectors, ...options, "--", "sh", "-c", script], {
      TMPDIR: temporary,
      HOME: temporary,
      ...env,
    });
  const run = async (...args: Parameters<typeof start>): Promise<string> => {
    const job = await start(...args);
    await job.ended;
    expect(job.status(), job.output()).to.equal(0);
    return job.output();
  };
  const outcome = (command: readonly string[], ...options: readonly string[]): Promise<Outcome> =>
    host.run("run", ...connectors, ...options, "--", ...command);

  it("gives a command a volume, by which tools pull, and takes it back with the command's end", async () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's own
    const url = "https://${OCI_CONNECTOR_IMAGES%%/*}/v2/${OCI_CONNECTOR_IMAGES#*/}/app/manifests/1";
    const pull =
      'curl -sS --fail -o /dev/null -H "Authorization: Bearer $(cat $OCI_CONNECTOR_VOLUME/context.token)" ' +
      `"${url}"`;
    const said = await run(
      `set -e; ${pull}; cat $OCI_CONNECTOR_VOLUME/context.token >token; echo done`,
    );
    expect(said).to.equal("done\n");
    const token = await readFile(join(host.folder, "token"), "utf8");
    expect(await host.pullWith(token)).to.equal(401);
    expect(await readdir(temporary)).to.deep.equal([]);
  });

  it("ends with the command's exit code, and says nothing of its own", async () => {
    for (const status of [0, 1, 77, 255]) {
      const found = await outcome(["sh", "-c", `echo out; echo err >&2; exit ${status}`]);
      expect(found).to.include({ status, stdout: "out\n", stderr: "err\n" });
    }
    expect(await outcome(["sh", "-c", "kill -SEGV $$"])).to.include({
      status: 128 + 11,
      stderr: "",
    });
  });

  it("passes what is given on, as it is", async () => {
    const args = ["", "a b", "$HOME", "--connectors", "--", "ü\n"];
    const { stdout } = await outcome(["printf", "<%s>", ...args]);
    expect(stdout).to.equal(args.map((text) => `<${text}>`).join(""));
  });

  it("ends with 127 without such a command, and with 126 where it can't be executed", async () => {
    await writeFile(join(host.folder, "no-program"), "");
    for (const [command, status, words] of [
      ["no-such-command", 127, "there is no such command"],
      ["./no-such-command", 127, "there is no such command"],
      ["./no-program", 126, "it is not executable"],
      ["/", 126, "it is not executable"],
    ] as const) {
      const found = await outcome([command]);
      expect(found).to.include({ status, stdout: "" });
      expect(found.stderr).to.include(`${command} can't be run`).and.include(words);
    }
  });

  it("ends with 125 and the reason where there can be no volume, and with 64 where it is misused", async () => {
    const missing = await host.run("run", "--connectors", "team-a/hup", "--", "true");
    expect(missing.status).to.equal(125);
    expect(missing.stderr).to.include('connector "team-a/hup" not found');
    const noFile = await outcome(["true"], "--configuration", "!.env", "--forward");
    expect(noFile.status).to.equal(125);
    expect(noFile.stderr).to.include("--forward");
    const noTemporary = await host.startJob([...connectors, "--", "true"], { TMPDIR: "/nowhere" });
    await noTemporary.ended;
    expect(noTemporary.status()).to.equal(125);
    expect(noTemporary.output()).to.include("/nowhere (ENOENT): create that one, or name another");
    expect((await host.run("run", ...connectors, "true")).status).to.equal(64);
  });

  it("tells tools of the volume's files, and only of those that it has", async () => {
    const lines = (await run("env")).split("\n");
    const has = (name: string): string | undefined =>
      lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
    const volume = has("OCI_CONNECTOR_VOLUME");
    expect(dirname(volume ?? "")).to.equal(join(host.folder, "run"));
    expect(has("OCI_CONNECTOR_IMAGES")).to.equal(`${host.https}/namespaces/team-a/connectors/hub`);
    expect(has("DOCKER_CONFIG")).to.equal(volume);
    expect(has("REGISTRY_AUTH_FILE")).to.equal(`${volume}/config.json`);
    expect(has("CONTAINERS_REGISTRIES_CONF")).to.match(/\/registries\.conf$/);
    expect(has("SSL_CERT_FILE")).to.equal(`${volume}/ca-bundle.crt`);
    expect(has("NODE_EXTRA_CA_CERTS")).to.equal(`${volume}/ca.crt`);
    expect(has("BUILDX_CONFIG")).to.match(new RegExp(`^${temporary}/`));
    expect(has("https_proxy")).to.equal(undefined);
    const bare = await run("env", ["--configuration", "!config.json,docker-config"]);
    expect(bare).not.to.match(
      /^(DOCKER_CONFIG|REGISTRY_AUTH_FILE|CONTAINERS_REG\w+|BUILDKITD\w+)=/m,
    );
  });

  it("sets the variables of the forward proxy by --forward, and keeps hosts that are reached directly", async () => {
    const said = await run("env", ["--forward"], { no_proxy: "intra.example.com" });
    const url = /^https_proxy=(http:\/\/team-a%2Fhub:.*)$/m.exec(said)?.[1] ?? "";
    expect(url).to.match(new RegExp(`@${host.http}$`));
    expect(said).to.include(`\nHTTPS_PROXY=${url}\n`).and.include(`\nHTTP_PROXY=${url}\n`);
    expect(said).to.match(/^no_proxy=localhost,127\.0\.0\.1,::1,intra\.example\.com$/m);
    expect(said).to.match(/^NO_PROXY=localhost,127\.0\.0\.1,::1,intra\.example\.com$/m);
  });

  it("gives tools buildkitd's configuration", async () => {
    const options = ["--configuration", "buildkitd"];
    const said = await run(
      'echo $BUILDKITD_FLAGS; cmp "$OCI_CONNECTOR_VOLUME/buildkitd.toml" "$BUILDX_CONFIG/buildkitd.default.toml"',
      options,
      { BUILDKITD_FLAGS: "--debug" },
    );
    expect(said).to.match(/^--debug --config \S+\/buildkitd\.toml\n$/);
    const kept = await run("echo $BUILDX_CONFIG", options, { BUILDX_CONFIG: "/srv/buildx" });
    expect(kept).to.equal("/srv/buildx\n");
  });

  it("keeps the machine's registries, and certificates that the caller trusts", async () => {
    const machine = join(temporary, "machine.conf");
    await writeFile(
      machine,
      `unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "mine.example.com"\n[[registry]]\nlocation = "${host.http}"\nblocked = true\n`,
    );
    await writeFile(join(temporary, "own.crt"), "the company's certificate");
    const env = { CONTAINERS_REGISTRIES_CONF: machine, SSL_CERT_FILE: join(temporary, "own.crt") };
    const registries = parse(await run("cat $CONTAINERS_REGISTRIES_CONF", [], env));
    expect(registries).to.deep.include({ "unqualified-search-registries": ["docker.io"] });
    const entries = registries.registry as { prefix?: string; location: string }[];
    expect(entries.map(({ prefix, location }) => prefix ?? location)).to.have.members([
      "mine.example.com",
      host.http,
      new URL(registry.url).host,
    ]);
    expect(JSON.stringify(entries)).not.to.include("blocked");
    const trusted = await run("cat $SSL_CERT_FILE; echo; cat $CURL_CA_BUNDLE", [], env);
    expect(trusted).to.match(/^the company's certificate\n-----BEGIN CERTIFICATE/);

    await writeFile(machine, "[registries.search]\nregistries = []\n");
    const refused = await start("true", [], env);
    await refused.ended;
    expect(refused.status()).to.equal(125);
    expect(refused.output()).to.include(`${machine}: wanted TOML in version 2`);
  });

  it("has a volume that no tool can break, also as root", async () => {
    const said = await run(
      "rm $DOCKER_CONFIG/config.json; echo '{}' > $DOCKER_CONFIG/config.json; cat $DOCKER_CONFIG/config.json",
      [],
    ).catch(String);
    expect(said.match(/Read-only file system/g)).to.have.lengthOf(2);
    expect(said).to.include('"auths"');
  });

  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const) {
    it(`passes ${signal} on, and ends as the command does`, async () => {
      const name = signal.slice(3);
      const job = await start(
        `trap 'echo got ${name}; exit 7' ${name}; echo ready; while :; do sleep 0.05; done`,
      );
      await job.waitFor(/^ready$/m);
      process.kill(job.pid, signal);
      await job.waitFor(new RegExp(`^got ${name}$`, "m"));
      await job.ended;
      expect(job.status()).to.equal(7);
    });
  }

  it("ends as shells do where a signal ends the command", async () => {
    const job = await start("echo ready; exec sleep 1000");
    await job.waitFor(/^ready$/m);
    process.kill(job.pid, "SIGTERM");
    await job.ended;
    expect(job.status()).to.equal(128 + 15);
  });

  it("takes the token back soon after it was killed itself, and the mount", async () => {
    const job = await start(
      "cat $OCI_CONNECTOR_VOLUME/context.token; echo; echo ready; exec sleep 1000",
    );
    const [, token = ""] = await job.waitFor(/^(\S+)\nready$/m);
    expect(await host.pullWith(token)).to.equal(200);
    process.kill(job.pid, "SIGKILL");
    await eventually(
      async () => (await host.pullWith(token)) === 401,
      () => "the token is still good",
    );
    job.signal("SIGKILL"); // the rest of its group: the command goes on without us
  });

  it("says so where the command leaves something that uses the volume", async () => {
    const job = await start(
      "cd $OCI_CONNECTOR_VOLUME; sleep 1000 >/dev/null 2>&1 & cat $OCI_CONNECTOR_VOLUME/context.token",
    );
    await job.ended;
    expect(job.status()).to.equal(0);
    const [token = "", ...rest] = job.output().split("oci-connector: ");
    expect(rest.join("")).to.include("the command has left something running");
    expect(await host.pullWith(token)).to.equal(401);
    job.signal("SIGKILL");
  });

  it("ends its volume also where no process runs at its end", async () => {
    const job = await start(
      "cat $OCI_CONNECTOR_VOLUME/context.token; echo; echo ready; exec sleep 1000",
    );
    const [, token = ""] = await job.waitFor(/^(\S+)\nready$/m);
    await host.kill();
    process.kill(job.pid, "SIGTERM");
    await job.ended;
    expect(job.output()).to.include("could not be unmounted; the standalone process ends it");
    await host.start();
    expect(await host.pullWith(token)).to.equal(401);
  });

  it("goes on over an upgrade of the process", async () => {
    const job = await start(
      "cat $OCI_CONNECTOR_VOLUME/context.token; echo; echo ready; exec sleep 1000",
    );
    const [, token = ""] = await job.waitFor(/^(\S+)\nready$/m);
    await host.program().stop();
    await host.start();
    expect(await host.pullWith(token)).to.equal(200);
    process.kill(job.pid, "SIGTERM");
    await job.ended;
    expect(await host.pullWith(token)).to.equal(401);
  });

  it("lets the command read from a terminal, whose Ctrl-C it gets once", async () => {
    const script =
      "trap 'echo got INT' INT; test -t 0 && test -t 1 && echo terminal; read line; echo \"read $line\"; sleep 1; exit 3";
    const main = join(import.meta.dirname, "../../src/main.ts");
    const line = [
      process.execPath,
      main,
      "run",
      "--state",
      host.state,
      ...connectors,
      "--",
      "sh",
      "-c",
    ]
      .concat(script)
      .map((word) => `'${word.replaceAll("'", "'\\''")}'`)
      .join(" ");
    const terminal = resources.add(
      await startProgram("script", ["-qfec", `exec ${line}`, "/dev/null"], {
        opensInput: true,
        env: { TMPDIR: temporary },
      }),
    );
    await terminal.waitFor(/^terminal\r$/m);
    terminal.write("hello\n");
    await terminal.waitFor(/^read hello\r$/m);
    terminal.write("\u0003");
    await terminal.ended;
    expect(terminal.output().match(/got INT/g)).to.have.lengthOf(1);
    expect(terminal.status()).to.equal(3);
  });
});

describe("oci-connector run with buildah", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let clients: Clients;
  let registry: DockerRegistry;
  let host: CiHost;

  before(async () => {
    clients = resources.add(await prepareClients());
    registry = resources.add(await startDockerRegistry({ auth: "token" }));
    host = resources.add(await startCiHost());
    const { username, password, url, host: address } = registry;
    const login = { username, password };
    await host.write("hub.yaml", connectorYaml({ ref: "team-a/hub", address: url, login }));
    await host.waitForLog("connectors were added, removed or changed");
    const { reference } = await writeTestImage(join(clients.folder, "base"));
    const target = ["--dest-tls-verify=false", "--dest-creds", `${username}:${password}`];
    const copy = ["copy", ...target, reference, `docker://${address}/base:1`];
    expect((await clients.skopeo(copy)).status).to.equal(0);
  });
  after(resources.stop);

  /** Runs a script in which `buildah` keeps its images in the test's folder. */
  const run = async (script: string): Promise<RunningProgram> => {
    const at = (name: string): string => join(clients.folder, name);
    const flags = `--root ${at("storage")} --runroot ${at("run")} --storage-driver vfs`;
    const job = await host.startJob(
      [
        "--connectors",
        "team-a/hub",
        "--",
        "sh",
        "-ec",
        `buildah() { command buildah ${flags} "$@"; }\n${script}`,
      ],
      {
        HOME: clients.home,
        TMPDIR: at("tmp"),
        XDG_RUNTIME_DIR: at("run"),
        BUILDAH_ISOLATION: "chroot",
      },
    );
    await job.ended;
    return job;
  };

  it("pulls by the registry's own name, and pushes, without a flag", async () => {
    const job = await run(`
      buildah pull ${registry.host}/base:1
      buildah push ${registry.host}/base:1 docker://$OCI_CONNECTOR_IMAGES/app:1
      buildah pull $OCI_CONNECTOR_IMAGES/app:1`);
    expect(job.status(), job.output()).to.equal(0);
  });

  it("can't log out from a volume, and says what docs/clients.md has", async () => {
    const job = await run("buildah logout --all");
    expect(job.status()).to.equal(125);
    const docs = await readFile(new URL("../../docs/clients.md", import.meta.url), "utf8");
    const [said = ""] = /read-only file system/.exec(job.output()) ?? [];
    expect(said).not.to.equal("");
    expect(docs).to.include(`: ${said}`);
  });
});
