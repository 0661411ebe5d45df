import { readFileSync } from "node:fs";
import { expect } from "chai";
import fc from "fast-check";
import { type Command, readCommand } from "../../src/config/command.ts";
import {
  type CommandName,
  commandHelp,
  commandList,
  commandNames,
  exitCodes,
} from "../../src/config/help.ts";
import { isWithoutProxy } from "../../src/connector/no-proxy.ts";

describe("the command line of oci-connector", () => {
  const context = { workingDirectory: "/srv/job", group: 1000, uid: 0, environment: {} };
  const read = (...args: readonly string[]): Command => {
    const command = readCommand(args, context);
    if (!command.ok) throw new Error(JSON.stringify(command.problems));
    return command.value;
  };
  /** What is wrong: `--grace: "soon"`, as path and value; and all that is wanted. */
  const wrong = (...args: readonly string[]): { found: readonly string[]; wanted: string } => {
    const command = readCommand(args, context);
    if (command.ok) throw new Error(`accepted: ${JSON.stringify(command.value)}`);
    const { problems } = command;
    return {
      found: problems.map(({ path, found }) => `${path}: ${found}`),
      wanted: problems.map(({ wanted }) => wanted).join("\n"),
    };
  };
  const settings = (...args: readonly string[]) => {
    const command = read("standalone", "--connectors", "/etc/connectors", ...args);
    if (command.name !== "standalone") throw new Error(command.name);
    return command.settings;
  };
  const listens = (...addresses: readonly string[]) =>
    settings(...addresses.flatMap((address) => ["--listen", address])).listen;

  describe("standalone", () => {
    it("has defaults for all but the folder of connectors", () => {
      expect(settings()).to.deep.equal({
        connectors: "/etc/connectors",
        state: "/var/lib/oci-connector",
        socket: "/var/lib/oci-connector/csi.sock",
        runFolder: "/run/oci-connector",
        allowed: [],
        listen: [{ scheme: "https", host: "127.0.0.1", port: 5443 }],
        tokenLifetimeSeconds: 4 * 3600,
        egress: undefined,
        graceMs: 30_000,
        tunnels: { any: true, hosts: [], domains: [], networks: [], neverNetworks: [] },
      });
      expect(wrong("standalone").found).to.deep.equal(["--connectors: nothing"]);
      expect(wrong("standalone", "--connectors").found).to.deep.equal(['--connectors: ""']);
    });

    it("takes users and groups with their connectors, as often as needed", () => {
      const allow = ["--allow", "ci=team-a/*,team-b/hub", "--allow", "@builders=**"];
      const command = read("standalone", "--connectors", "/c", ...allow);
      expect(command.name === "standalone" && command.settings.allowed).to.deep.equal([
        { kind: "user", who: "ci", connectors: ["team-a/*", "team-b/hub"] },
        { kind: "group", who: "builders", connectors: ["**"] },
      ]);
      for (const text of ["ci", "=team-a/*", "@=a/b", "ci=", "ci=hub", "ci=a/b/c", "ci=a/b,"]) {
        const { found } = wrong("standalone", "--connectors", "/c", "--allow", text);
        expect(found, text).to.deep.equal([`--allow: ${JSON.stringify(text)}`]);
      }
    });

    it("takes every option", () => {
      const given = settings(
        ...["--state", "/srv/state", "--listen", "http://localhost:80"],
        ...["--token-lifetime=90m", "--grace", "1m30s", "--tunnel", "github.com:443"],
        "--run-folder=jobs",
      );
      expect(given).to.deep.equal({
        connectors: "/etc/connectors",
        state: "/srv/state",
        socket: "/srv/state/csi.sock",
        runFolder: "/srv/job/jobs",
        allowed: [],
        listen: [{ scheme: "http", host: "localhost", port: 80 }],
        tokenLifetimeSeconds: 5400,
        egress: undefined,
        graceMs: 90_000,
        tunnels: {
          any: false,
          domains: [],
          networks: [],
          neverNetworks: [],
          hosts: [{ host: "github.com", port: 443 }],
        },
      });
    });

    it("takes a company's proxy, with a login that stands in a file", () => {
      for (const name of ["standalone", "check"] as const) {
        const before = name === "check" ? ["check", "c"] : ["standalone", "--connectors=c"];
        const command = read(
          ...before,
          "--egress-proxy=https://Proxy.corp:3128/",
          "--egress-no-proxy=harbor.corp,10.0.0.0/8",
          "--egress-no-proxy=.test",
          "--egress-login=login",
          "--egress-resolves",
        );
        if (command.name !== name) throw new Error(command.name);
        const { egress } = command.settings;
        expect(egress).to.deep.include({ resolves: true, loginPath: "/srv/job/login" });
        expect(egress?.proxy).to.deep.equal({
          origin: "https://proxy.corp:3128",
          host: "proxy.corp",
          port: 3128,
          isTls: true,
        });
        const direct = ["harbor.corp", "10.1.2.3", "a.test", "localhost", "example.com"];
        expect(
          direct.map((host) => isWithoutProxy(egress?.noProxy ?? [], host, 443)),
        ).to.deep.equal([true, true, true, true, false]);
      }
    });

    for (const address of [
      "proxy.corp",
      "http://proxy.corp",
      "http://proxy.corp:0",
      "http://proxy.corp:70000",
      "socks5://proxy.corp:1080",
      "http://proxy.corp:3128/path",
      "http://[::1:3128",
    ]) {
      it(`refuses the company's proxy ${address}, and says why`, () => {
        const { found, wanted } = wrong("standalone", "--connectors=c", "--egress-proxy", address);
        expect(found).to.deep.equal([`--egress-proxy: "${address}"`]);
        expect(wanted).to.contain("http://HOST:PORT");
      });
    }

    it("refuses a login in the address of a company's proxy, without showing it", () => {
      const address = "http://build:secret-word@proxy.corp:3128";
      const { found, wanted } = wrong("standalone", "--connectors=c", "--egress-proxy", address);
      expect(found).to.deep.equal(["--egress-proxy: an address with a login"]);
      expect(wanted).to.contain("--egress-login").and.not.contain("secret-word");
    });

    it("refuses options about a company's proxy without its address", () => {
      for (const option of ["--egress-login=f", "--egress-no-proxy=a", "--egress-resolves"]) {
        expect(wrong("standalone", "--connectors=c", option).found).to.deep.equal([
          "--egress-proxy: nothing",
        ]);
      }
      expect(
        wrong("check", "c", "--egress-proxy=p:1", "--egress-no-proxy=http://x").found,
      ).to.deep.equal(['--egress-no-proxy: "http://x"']);
    });

    it("takes relative paths from where it is called", () => {
      const { connectors, state, socket } = settings("--connectors", "../x/./y", "--state", "s");
      expect({ connectors, state, socket }).to.deep.equal({
        connectors: "/srv/x/y",
        state: "/srv/job/s",
        socket: "/srv/job/s/csi.sock",
      });
    });

    it("listens for one of each scheme, https unless told", () => {
      expect(listens("127.0.0.1:5443", "http://127.0.0.1:5080")).to.deep.equal([
        { scheme: "https", host: "127.0.0.1", port: 5443 },
        { scheme: "http", host: "127.0.0.1", port: 5080 },
      ]);
      expect(listens("https://[::1]:0")).to.deep.equal([{ scheme: "https", host: "::1", port: 0 }]);
      expect(listens("[FE80::1]:65535")).to.deep.equal([
        { scheme: "https", host: "FE80::1", port: 65535 },
      ]);
      expect(listens("ci-host.example.com:5443")[0]?.host).to.equal("ci-host.example.com");
      expect(wrong("standalone", "--connectors=c", "--listen=a:1", "--listen=b:2")).to.deep.equal({
        found: ['--listen: ["a:1","b:2"]'],
        wanted: "one http and one https address at most",
      });
    });

    for (const address of ["0.0.0.0:80", "http://0.0.0.0:80", "[::]:443", "[0::0]:443"]) {
      it(`refuses to listen on ${address}, and says why`, () => {
        const { found, wanted } = wrong("standalone", "--connectors=c", "--listen", address);
        expect(found).to.deep.equal([`--listen: "${address}"`]);
        expect(wanted).to.equal(
          "an address that tools can connect to, since every file of a volume names it",
        );
      });
    }

    for (const address of [
      "5080",
      ":5080",
      "127.0.0.1",
      "127.0.0.1:",
      "127.0.0.1:65536",
      "127.0.0.1:-1",
      "::1:80",
      "[127.0.0.1]:80",
      "[face]:80",
      "[::1]",
      "ftp://127.0.0.1:80",
      "http://a:80/",
      "a b:80",
      "http://user@a:80",
      "127.0.0.1:80\n",
      "*:80",
    ]) {
      it(`does not take ${JSON.stringify(address)} for an address`, () => {
        const { found, wanted } = wrong("standalone", "--connectors=c", "--listen", address);
        expect(found).to.deep.equal([`--listen: ${JSON.stringify(address)}`]);
        expect(wanted).to.equal("[http://|https://]HOST:PORT");
      });
    }

    it("keeps durations to what tokens and timers can do", () => {
      expect(settings("--token-lifetime", "10m").tokenLifetimeSeconds).to.equal(600);
      expect(settings("--token-lifetime", "8760h").tokenLifetimeSeconds).to.equal(365 * 24 * 3600);
      expect(settings("--grace", "0s").graceMs).to.equal(0);
      expect(settings("--grace", "24h").graceMs).to.be.below(2 ** 31);
      for (const [option, text] of [
        ...["9m59s", "8761h", "1000", "", "-1h", "1 h"].map((text) => ["--token-lifetime", text]),
        ...["24h1s", "596h32m", "30", "soon"].map((text) => ["--grace", text]),
      ]) {
        const { found } = wrong("standalone", "--connectors=c", `${option}=${text}`);
        expect(found.join()).to.equal(`${option}: "${text}"`);
      }
    });

    it("names everything that is wrong at once", () => {
      const { found, wanted } = wrong(
        ...["standalone", "--connector", "c", "--listen", "0.0.0.0:1", "--listen", "x"],
        ...["--token-lifetime", "1m", "--grace=never", "--state", "", "-v"],
      );
      expect(found).to.deep.equal([
        'option: "--connector"',
        '--state: ""',
        'option: "-v"',
        'argument: "c"',
        "--connectors: nothing",
        '--listen: "0.0.0.0:1"',
        '--listen: "x"',
        '--token-lifetime: "1m"',
        '--grace: "never"',
      ]);
      expect(wanted).to.include("--connectors, --listen, --state, --run-folder, --token-lifetime");
    });
  });

  describe("mount", () => {
    const mount = (...args: readonly string[]) => read("mount", ...args);

    it("has defaults, and takes the target from where it is called", () => {
      expect(mount("--connectors", "harbor", "volume")).to.deep.equal({
        name: "mount",
        settings: {
          socket: "/var/lib/oci-connector/csi.sock",
          target: "/srv/job/volume",
          namespace: "default",
          group: "1000",
          attributes: {
            connectors: "harbor",
            "configuration.names": "",
            "configuration.params": "",
            "token.expiration": "",
          },
          lifetimeSeconds: 24 * 3600,
          pid: undefined,
          isReadOnly: false,
          isPersistent: false,
          replaces: false,
          hidesFiles: false,
        },
      });
    });

    it("takes every option", () => {
      const command = mount(
        ...["/run/job", "--connectors", "harbor,team-b/ghcr", "--configuration", "docker-config"],
        ...["--params", '{"buildkitd":{"mirror":true}}', "--token-expiration", "30m"],
        ...["--namespace", "team-a", "--group", "0", "--state", "../state", "--for", "1h30m"],
        ...["--pid", "4711", "--read-only", "--replace", "--force"],
      );
      expect(command).to.deep.equal({
        name: "mount",
        settings: {
          socket: "/srv/state/csi.sock",
          target: "/run/job",
          namespace: "team-a",
          group: "0",
          attributes: {
            connectors: "harbor,team-b/ghcr",
            "configuration.names": "docker-config",
            "configuration.params": '{"buildkitd":{"mirror":true}}',
            "token.expiration": "30m",
          },
          lifetimeSeconds: 5400,
          pid: 4711,
          isReadOnly: true,
          isPersistent: false,
          replaces: true,
          hidesFiles: true,
        },
      });
    });

    it("takes a time for the volume, and 0 for no limit", () => {
      const given = (...args: readonly string[]) => {
        const { settings } = mount("v", "--connectors=a", ...args) as { settings: object };
        return settings;
      };
      expect(given("--for=0", "--persistent")).to.include({
        lifetimeSeconds: 0,
        isPersistent: true,
      });
      expect(given("--for", "8760h")).to.include({ lifetimeSeconds: 8760 * 3600 });
      expect(given("--for", "1.5s")).to.include({ lifetimeSeconds: 2 });
      for (const [option, text] of [
        ["--for", "0s"],
        ["--for", "8761h"],
        ["--for", "soon"],
        ["--pid", "0"],
        ["--pid", "self"],
        ["--read-only", "yes"],
      ] as const) {
        const { found } = wrong("mount", "v", "--connectors=a", `${option}=${text}`);
        expect(found).to.deep.equal([`${option}: "${text}"`]);
      }
      const both = wrong("mount", "v", "--connectors=a", "--pid=1", "--persistent");
      expect(both.wanted).to.include("one of --pid and --persistent");
    });

    it("names everything that is wrong at once", () => {
      const { found } = wrong(
        "mount",
        "--group=wheel",
        "--conectors=x",
        "--namespace",
        "--params={}",
      );
      expect(found).to.deep.equal([
        'option: "--conectors"',
        '--namespace: "--params={}"',
        "TARGET: []",
        "--connectors: nothing",
        '--group: "wheel"',
      ]);
    });

    it("checks what the volume shall hold, and names the options", () => {
      const { found, wanted } = wrong(
        ...["mount", "volume", "--connectors=a/B", "--configuration=docker-conf"],
        '--params={"buildkitd":{"mirror":"perhaps"}}',
      );
      expect(found).to.deep.equal([
        '--connectors: "a/B"',
        '--configuration: "docker-conf"',
        '--params.buildkitd.mirror: "perhaps"',
      ]);
      expect(wanted).to.include("one of docker-config, ");
      expect(wrong("mount", "volume").found).to.deep.equal(["--connectors: nothing"]);
      expect(wrong("mount", "volume", "--connectors").found).to.deep.equal(['--connectors: ""']);
      for (const group of ["4294967295", "-1", "99999999999"]) {
        const { found } = wrong("mount", "v", "--connectors=a", `--group=${group}`);
        expect(found).to.deep.equal([`--group: "${group}"`]);
      }
    });

    it("takes a lifetime of the volume's token as --token-lifetime does", () => {
      for (const text of ["10m", "30m", "8760h"]) {
        const command = mount("v", "--connectors=a", "--token-expiration", text);
        expect(command).to.nested.include({ "settings.attributes.token\\.expiration": text });
      }
      for (const text of ["9m59s", "8761h", "soon", "1d"]) {
        const { found, wanted } = wrong("mount", "v", "--connectors=a", "--token-expiration", text);
        expect(found).to.deep.equal([`--token-expiration: "${text}"`]);
        expect(wanted).to.equal("a duration from 10m to 8760h, such as 1h30m");
      }
    });
  });

  /** What a command wants beside its target. */
  const needed = (name: string): readonly string[] => (name === "mount" ? ["--connectors=a"] : []);

  for (const name of ["mount", "unmount"]) {
    it(`${name} never takes a missing or an empty target for the folder it is called in`, () => {
      for (const args of [[], [""], ["a", "b"], ["--state", "s"]]) {
        expect(wrong(name, ...needed(name), ...args).found).to.deep.equal([
          `TARGET: ${JSON.stringify(args.filter((text) => text !== "--state" && text !== "s"))}`,
        ]);
      }
      expect(wrong(name, ...needed(name), "target", "--state", "").found).to.deep.equal([
        '--state: ""',
      ]);
    });

    it(`${name} takes a target that looks like an option behind --`, () => {
      expect(read(name, ...needed(name), "--state=s", "--", "--odd")).to.nested.include({
        "settings.target": "/srv/job/--odd",
        "settings.socket": "/srv/job/s/csi.sock",
      });
    });
  }

  describe("run", () => {
    const run = (...args: readonly string[]) => read("run", ...args);

    it("takes everything behind -- for the command", () => {
      const command = run("--connectors=harbor", "--forward", "--", "sh", "-c", "--help", "--");
      expect(command).to.deep.equal({
        name: "run",
        settings: {
          socket: "/var/lib/oci-connector/csi.sock",
          namespace: "default",
          group: "1000",
          attributes: {
            connectors: "harbor",
            "configuration.names": "docker-config,registries-conf",
            "configuration.params": '{"registries-conf": {"mirror": true}}',
            "token.expiration": "",
          },
          command: ["sh", "-c", "--help", "--"],
          usesForwardProxy: true,
        },
      });
    });

    it("has no configurations of its own where it is told any", () => {
      for (const option of ["--configuration=!.env", '--params={"env":{}}']) {
        const command = run("--connectors=harbor", option, "--", "true");
        expect(JSON.stringify(command)).not.to.include("registries-conf");
      }
    });

    it("wants a command, and nothing else before it", () => {
      expect(wrong("run", "--connectors=a", "true").found).to.deep.equal([
        'COMMAND: ""',
        'argument: "true"',
      ]);
      expect(wrong("run", "--connectors=a", "--").found).to.deep.equal(['COMMAND: ""']);
      expect(wrong("run", "--", "true").found).to.deep.equal(["--connectors: nothing"]);
    });
  });

  it("volumes takes the state folder and a format", () => {
    expect(read("volumes", "--state", "/s", "--output=json")).to.deep.equal({
      name: "volumes",
      settings: { socket: "/s/csi.sock", output: "json" },
    });
    expect(wrong("volumes", "--output=yaml", "x").found).to.deep.equal([
      'argument: "x"',
      '--output: "yaml"',
    ]);
  });

  it("unmount takes a target and the state folder", () => {
    expect(read("unmount", "/run/job", "--state", "/s")).to.deep.equal({
      name: "unmount",
      settings: { socket: "/s/csi.sock", target: "/run/job" },
    });
    expect(wrong("unmount", "t", "--connectors", "x").found).to.include('option: "--connectors"');
  });

  describe("render", () => {
    it("has defaults for all but the connectors", () => {
      expect(read("render", "--connectors=harbor")).to.deep.equal({
        name: "render",
        settings: {
          attributes: {
            connectors: [{ namespace: "default", name: "harbor" }],
            configurations: [],
            params: {},
            leaveOut: [],
            tokenLifetimeSeconds: undefined,
          },
          proxy: [],
          clusterDomain: "cluster.local",
          imageHosts: [],
          files: [],
        },
      });
    });

    it("takes every option", () => {
      const command = read(
        ...["render", "config.json", "--connectors", "harbor,team-b/hub", "--namespace", "team-a"],
        ...["--configuration", "docker-config,!.env", "--params", '{"containerd":{"mirror":true}}'],
        ...["--proxy", "http://localhost:80", "--proxy", "10.1.2.3:443", "--cluster-domain", "x.y"],
        ...["--image-host", "harbor.example.com:8443", "--image-host", "index.docker.io"],
      );
      if (command.name !== "render") throw new Error(command.name);
      expect(command.settings).to.deep.include({
        proxy: [
          { scheme: "http", host: "localhost", port: 80 },
          { scheme: "https", host: "10.1.2.3", port: 443 },
        ],
        clusterDomain: "x.y",
        imageHosts: ["harbor.example.com:8443", "docker.io"],
        files: ["config.json"],
      });
      expect(command.settings.attributes).to.deep.include({
        configurations: ["docker-config"],
        leaveOut: [".env"],
        params: { containerd: { mirror: true } },
      });
    });

    it("names everything that is wrong at once", () => {
      const { found } = wrong(
        ...["render", "--configuration=x", "--params={", "--proxy=x", "--cluster-domain=_"],
        "--image-host=a/b",
      );
      expect(found).to.deep.equal([
        "--connectors: nothing",
        '--configuration: "x"',
        '--params: "{"',
        '--proxy: "x"',
        '--cluster-domain: "_"',
        '--image-host: "a/b"',
      ]);
    });

    it("wants the name that a mirror stands in for, for each connector", () => {
      const mirror = ["--params", '{"buildkitd":{"mirror":true}}', "--connectors", "a,b"];
      for (const hosts of [
        [],
        ["--image-host=x"],
        ["x", "y", "z"].map((h) => `--image-host=${h}`),
      ]) {
        const { found, wanted } = wrong("render", ...mirror, ...hosts);
        expect(found).to.deep.equal([`--image-host: ${hosts.length}`]);
        expect(wanted).to.contain("one for each connector");
      }
    });
  });

  it("check takes one folder, from where it is called", () => {
    expect(read("check", "../etc")).to.deep.equal({
      name: "check",
      settings: { folder: "/srv/etc", login: false, egress: undefined, output: "text" },
    });
    expect(read("check", "--login", "c", "--output=json")).to.deep.equal({
      name: "check",
      settings: { folder: "/srv/job/c", login: true, egress: undefined, output: "json" },
    });
    expect(wrong("check", "", "--login=yes").found).to.deep.equal(['--login: "yes"', 'DIR: [""]']);
  });

  describe("doctor", () => {
    it("has a default for everything", () => {
      const nothing = { connector: undefined, serviceAccount: undefined, context: undefined };
      expect(read("doctor")).to.deep.equal({
        name: "doctor",
        settings: { ...nothing, installNamespace: undefined, output: "text" },
      });
    });

    it("takes every option, and knows where it is in a Pod of the installation", () => {
      const args = [
        "doctor",
        "team-a/harbor",
        "--service-account",
        "team-b/ci.builder",
        "--context",
        "prod",
        "--output",
        "json",
      ];
      const environment = { POD_NAMESPACE: "elsewhere" };
      expect(readCommand(args, { ...context, environment })).to.deep.equal({
        ok: true,
        value: {
          name: "doctor",
          settings: {
            connector: { namespace: "team-a", name: "harbor" },
            serviceAccount: { namespace: "team-b", name: "ci.builder" },
            context: "prod",
            installNamespace: "elsewhere",
            output: "json",
          },
        },
      });
    });

    it("names everything that is wrong at once", () => {
      const { found } = wrong(
        ...["doctor", "a/B", "--service-account=x", "--install-namespace=X", "--output=xml"],
      );
      expect(found).to.deep.equal([
        'argument: "a/B"',
        '--service-account: "x"',
        '--install-namespace: "X"',
        '--output: "xml"',
      ]);
      expect(wrong("doctor", "a", "b").wanted).to.equal("one connector at most");
      expect(wrong("doctor", "--service-account=a/b").found).to.deep.equal(["argument: nothing"]);
    });
  });

  it("explains itself to whoever asks, however they ask", () => {
    for (const args of [[], ["help"], ["--help"], ["-h"], ["help", "-h"]]) {
      expect(read(...args)).to.deep.equal({ name: "help", topic: undefined });
    }
    expect(read("--help", "mount")).to.deep.equal({ name: "help", topic: "mount" });
    expect(read("unmount", "--state=", "t", "-h")).to.deep.equal({
      name: "help",
      topic: "unmount",
    });
    expect(read("unmount", "--", "-h")).to.have.nested.property("settings.target", "/srv/job/-h");
    expect(wrong("start", "--help=no").wanted).to.equal(
      "one of standalone, mount, run, unmount, volumes, render, check, doctor, csi, proxy, controller, node-images, help, version",
    );
    expect(wrong("help", "mount", "unmount").found).to.deep.equal(['argument: "unmount"']);
  });

  for (const name of commandNames) {
    it(`has help on ${name}, alone, and in the list`, () => {
      const topics = [
        ["help", name],
        ...(name === "help"
          ? []
          : [
              [name, "--help"],
              [name, "-h"],
            ]),
      ];
      for (const args of topics) {
        expect(read(...args)).to.deep.equal({ name: "help", topic: name });
      }
      const text = commandHelp[name];
      expect(text).to.match(new RegExp(`^usage: oci-connector ${name}( .*)?\n\n[^ ]`));
      expect(text.match(/usage: /g)).to.have.lengthOf(1);
      expect(commandList).to.match(new RegExp(`^  ${name} +[a-z]`, "m"));
      for (const line of text.split("\n")) expect(line.length).to.be.below(110);
    });
  }

  it("has its version, however one asks", () => {
    for (const args of [["version"], ["--version"], ["-V"]]) {
      expect(read(...args)).to.deep.equal({ name: "version" });
    }
    expect(wrong("version", "mount").found).to.deep.equal(['argument: "mount"']);
  });

  it("lists its exit codes in its help, and in the README", () => {
    const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
    for (const { code, meaning } of Object.values(exitCodes)) {
      expect(commandList).to.include(`  ${code}  ${" ".repeat(3 - `${code}`.length)}${meaning}\n`);
      expect(readme).to.include(`| ${code} | ${meaning} |`);
    }
  });

  for (const [args, meant] of [
    [["standlone"], "standalone"],
    [["muont"], "mount"],
    [["umount"], "mount or unmount"],
    [["help", "rendre"], "render"],
    [["Doctor"], "doctor"],
    [["contr", "--help"], "controller"],
    [["mount", "t", "--conector=x"], "--connectors"],
    [["mount", "t", "-connectors", "x"], undefined],
    [["standalone", "--tokn-lifetime=1h"], "--token-lifetime"],
    [["render", "--image=x"], "--image-host"],
    [["unmount", "t", "--hlep"], "--help"],
    [["nonsense"], undefined],
    [["x".repeat(100_000)], undefined],
    [["__proto__"], undefined],
    [["toString"], undefined],
    [[""], undefined],
  ] satisfies readonly (readonly [readonly string[], string | undefined])[]) {
    it(`takes ${args.join(" ").slice(0, 40)} for ${meant ?? "nothing that it knows"}`, () => {
      const { wanted } = wrong(...args);
      expect(/ \(did you mean (.*)\?\)/.exec(wanted)?.[1]).to.equal(meant);
    });
  }

  /** Options as a command's help names them, with the defaults that it tells. */
  const optionsInHelp = (name: CommandName): ReadonlyMap<string, string | undefined> => {
    const [, ...parts] = commandHelp[name].split(/^ {2}(?=--)/m);
    return new Map(
      parts.map((part) => [
        /^[a-z-]+/.exec(part)?.[0] ?? "",
        /\(default ([^\s,)]+)[^)]*\)/.exec(part)?.[1],
      ]),
    );
  };
  /** What each command with options wants, before its options or behind them. */
  const neededBy: Readonly<Record<string, { before?: string[]; behind?: string[] }>> = {
    standalone: { before: ["--connectors=a"] },
    mount: { before: ["--connectors=a", "target"] },
    run: { before: ["--connectors=a"], behind: ["--", "true"] },
    unmount: { before: ["target"] },
    volumes: {},
    render: { before: ["--connectors=a"] },
    check: { behind: ["folder"] },
    doctor: {},
  };
  const withOptions = Object.keys(neededBy) as (keyof typeof neededBy & CommandName)[];

  for (const name of withOptions) {
    it(`names in the help of ${name} every option that it takes, with its default`, () => {
      const options = wrong(name, "--no-such-option=1").wanted.match(/--[a-z-]+/g) ?? [];
      expect(options).not.to.deep.equal([]);
      const shown = optionsInHelp(name);
      expect([...shown.keys()].toSorted()).to.deep.equal(options.toSorted());

      const defaults = [...shown].flatMap(([option, value]) => (value ? [option, value] : []));
      expect(defaults).not.to.deep.equal([]);
      const { before = [], behind = [] } = neededBy[name] ?? {};
      const plain = read(name, ...before, ...behind);
      expect(read(name, ...before, ...defaults, ...behind)).to.deep.equal(plain);
    });
  }

  for (const name of ["csi", "proxy", "controller"] as const) {
    it(`names in the help of ${name} the variables that it wants`, () => {
      const missing = wrong(name).found.map((text) => text.split(":")[0]);
      expect(missing).not.to.deep.equal([]);
      expect(commandHelp[name].match(/\b[A-Z_]{5,}\b/g)).to.include.members(missing);
    });
  }

  it("never throws, and never takes a folder that nobody has named", () => {
    const word = fc.oneof(
      fc.constantFrom("standalone", "mount", "unmount", "--state", "--connectors", "--", "-", ""),
      fc.constantFrom("--listen", "--listen=", "--group=-1", "--grace", "t", "--__proto__=x"),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 8 }), (args) => {
        const command = readCommand(args, context);
        if (!command.ok) expect(command.problems).not.to.deep.equal([]);
        else if ("settings" in command.value) {
          expect(Object.values(command.value.settings as object)).not.to.include("/srv/job");
        }
      }),
    );
  });
});
