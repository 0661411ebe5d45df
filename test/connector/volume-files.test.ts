import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { parse } from "smol-toml";
import type { ConfigurationName } from "../../src/connector/configuration-params.ts";
import { describeProblems } from "../../src/connector/problem.ts";
import {
  listenerHosts,
  type ProxyHostsOf,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";
import { parseRegistryAddress } from "../../src/connector/registry-address.ts";
import { parseVolumeAttributes } from "../../src/connector/volume-attributes.ts";
import type { VolumeContents } from "../../src/connector/volume-contents.ts";
import { renderVolumeFiles, type VolumeFiles } from "../../src/connector/volume-files.ts";
import { cleanup } from "../support/cleanup.ts";
import { prepareClients } from "../support/clients.ts";
import { runProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { startRecordingRegistry } from "./recording-registry.ts";
import { sampleAuthority, sampleRoots, sampleToken, sampleVolume } from "./sample-volume.ts";

const one = ["team-a/harbor=harbor.example.com"] as const;
const two = [...one, "team-b/ghcr=ghcr.io"] as const;
const encodedToken = "tok.en-1_2~3%2B4%2F5%3D%3D";

const builtIn = [
  ".env",
  "http.proxy",
  "https.proxy",
  "context.token",
  "context.proxy.caCert",
  "ca.crt",
  "ca.cert",
  "ca-bundle.crt",
  "connector.status.proxyAddress",
];

type Attributes = Parameters<typeof renderVolumeFiles>[0];

const nothingMore: Attributes = { configurations: [], params: {}, leaveOut: [] };

function render(contents: VolumeContents, attributes: Partial<Attributes> = {}): VolumeFiles {
  const files = renderVolumeFiles({ ...nothingMore, ...attributes }, contents);
  if (!files.ok) throw new Error(describeProblems(files.problems));
  return files.value;
}

describe("the files that every volume has", () => {
  it("are the nine of the contract", () => {
    expect([...render(sampleVolume(one)).keys()]).to.have.members(builtIn);
  });

  it("have the token, and the CA three times", () => {
    const files = render(sampleVolume(one));
    expect(files.get("context.token")).to.equal(sampleToken);
    for (const name of ["ca.crt", "ca.cert", "context.proxy.caCert"]) {
      expect(files.get(name), name).to.equal(sampleAuthority);
    }
  });

  it("have the CA beside those that tools trust by themselves, too", () => {
    const bundle = render(sampleVolume(one)).get("ca-bundle.crt");
    expect(bundle).to.equal(sampleRoots + sampleAuthority);
  });

  const both = listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" });
  const proxies: readonly [
    claim: string,
    connectors: readonly [string, ...string[]],
    hosts: ProxyHostsOf,
    forward: string,
    reverse: string,
  ][] = [
    [
      "of one connector in a cluster",
      one,
      serviceHosts("cluster.local"),
      `http://team-a%2Fharbor:${encodedToken}@c-harbor.team-a.svc.cluster.local`,
      "http://c-harbor.team-a.svc.cluster.local/namespaces/team-a/connectors/harbor",
    ],
    [
      "of several connectors: all may be used, at the address of the last",
      two,
      serviceHosts("cluster.local"),
      `http://team-a%2Fharbor,team-b%2Fghcr:${encodedToken}@c-ghcr.team-b.svc.cluster.local`,
      "http://c-ghcr.team-b.svc.cluster.local/namespaces/team-b/connectors/ghcr",
    ],
    [
      "of an HTTP listener",
      one,
      listenerHosts({ http: "127.0.0.1:5080" }),
      `http://team-a%2Fharbor:${encodedToken}@127.0.0.1:5080`,
      "http://127.0.0.1:5080/namespaces/team-a/connectors/harbor",
    ],
    [
      "of a TLS listener",
      one,
      listenerHosts({ https: "127.0.0.1:5443" }),
      `https://team-a%2Fharbor:${encodedToken}@127.0.0.1:5443`,
      "https://127.0.0.1:5443/namespaces/team-a/connectors/harbor",
    ],
    [
      "of both listeners: forward on HTTP, which every client can, reverse on TLS",
      two,
      both,
      `http://team-a%2Fharbor,team-b%2Fghcr:${encodedToken}@127.0.0.1:5080`,
      "https://127.0.0.1:5443/namespaces/team-b/connectors/ghcr",
    ],
  ];
  for (const [claim, connectors, hosts, forward, reverse] of proxies) {
    it(`have the proxy ${claim}`, () => {
      const files = render(sampleVolume(connectors, hosts));
      expect(files.get("http.proxy")).to.equal(forward);
      expect(files.get("https.proxy")).to.equal(forward);
      expect(files.get("connector.status.proxyAddress")).to.equal(reverse);
      const noProxy = "localhost,127.0.0.1,.svc";
      expect(files.get(".env")).to.equal(
        `http_proxy=${forward}\nHTTP_PROXY=${forward}\nhttps_proxy=${forward}\n` +
          `HTTPS_PROXY=${forward}\nno_proxy=${noProxy}\nNO_PROXY=${noProxy}\n`,
      );
    });
  }

  it("name connectors and token in the proxy's URL so that URL reads them back", () => {
    const url = new URL(render(sampleVolume(two)).get("http.proxy") ?? "");
    expect(decodeURIComponent(url.username)).to.equal("team-a/harbor,team-b/ghcr");
    expect(decodeURIComponent(url.password)).to.equal(sampleToken);
  });

  for (const token of ["", "a b", "a\nb", 'a"b', "a:b", "a=b", "größe"]) {
    it(`are not made of the token ${JSON.stringify(token)}, which no header can carry`, () => {
      expect(() => render({ ...sampleVolume(one), token })).to.throw(TypeError, "not a b64token");
    });
  }
});

describe("the .env file of a volume", () => {
  const names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"];
  const resources = cleanup();
  after(resources.stop);

  it("is to a shell what it is to a reader that knows no quotes", async () => {
    const folder = resources.add(makeTempFolder("env")).path;
    const params = { env: { mountPath: "/run/my-v_1.x" } };
    const text = render(sampleVolume(two), { params }).get(".env") ?? "";
    await writeFile(join(folder, ".env"), text);
    const naive = text
      .split("\n")
      .slice(0, -1)
      .map((line) => {
        const equals = line.indexOf("=");
        return [line.slice(0, equals), line.slice(equals + 1)];
      });
    expect(naive.map(([name]) => name)).to.include.members(names);

    for (const [shell, ...flags] of [["sh"], ["bash", "--norc"]] as const) {
      const script = "set -a; . ./.env; exec env";
      const { stdout, stderr } = await runProgram(shell, [...flags, "-c", script], { cwd: folder });
      expect(stderr).to.equal("");
      const seen = stdout.split("\n").filter((line) => /_proxy=|=\/run\/my-v_1\.x/i.test(line));
      expect(seen, shell).to.have.members(naive.map((pair) => pair.join("=")));
    }
  });

  it("names certificates where it is known where the volume is mounted", () => {
    const text = render(sampleVolume(one)).get(".env") ?? "";
    const params = { env: { mountPath: "/connector" } };
    const more = render(sampleVolume(one), { params }).get(".env") ?? "";
    expect(more.startsWith(text)).to.equal(true);
    const added = more.slice(text.length).trimEnd().split("\n");
    const bundle = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"];
    expect(added).to.have.members([
      ...[...bundle, "GIT_SSL_CAINFO", "GIT_PROXY_SSL_CAINFO"].map(
        (name) => `${name}=/connector/ca-bundle.crt`,
      ),
      "NODE_EXTRA_CA_CERTS=/connector/ca.crt",
    ]);
  });

  it("makes a client log in to the proxy with all connectors and the token", async () => {
    const clients = resources.add(await prepareClients());
    const proxy = resources.add(await startRecordingRegistry());
    const text = render(sampleVolume(two, listenerHosts({ http: proxy.host }))).get(".env") ?? "";
    const env = Object.fromEntries(
      text
        .trim()
        .split("\n")
        .map((line) => line.split(/=(.*)/)),
    );
    await clients.skopeo(["inspect", "--raw", "docker://harbor.example.com/app:1"], { env });
    expect(proxy.requests[0]).to.deep.equal({
      line: "CONNECT harbor.example.com:443",
      host: "harbor.example.com:443",
      login: `team-a/harbor,team-b/ghcr:${sampleToken}`,
    });
  }).timeout(60_000);
});

describe("the files of a volume's configurations", () => {
  const certificate = "certs.d/c-harbor.team-a.svc.cluster.local/ca.crt";
  const cases: readonly [ConfigurationName, readonly string[]][] = [
    ["docker-config", ["config.json"]],
    ["buildkitd", ["buildkitd.toml"]],
    ["registries-conf", ["registries.conf", certificate]],
    ["containerd", ["certs.d/c-harbor.team-a.svc.cluster.local/hosts.toml", certificate]],
  ];
  for (const [configuration, paths] of cases) {
    it(`${configuration} adds ${paths.join(" and ")}`, () => {
      const files = render(sampleVolume(one), { configurations: [configuration] });
      expect([...files.keys()]).to.have.members([...builtIn, ...paths]);
    });
  }

  it("share the folders of certificates", () => {
    const files = render(sampleVolume(one), { configurations: ["registries-conf", "containerd"] });
    expect([...files.keys()].filter((name) => name === certificate)).to.have.length(1);
  });

  it("take a Pod's own settings before those that hold for all", () => {
    const attributes: Attributes = {
      ...nothingMore,
      configurations: ["buildkitd", "containerd"],
      params: { buildkitd: { mountPath: "/mine" } },
    };
    const forAll = { mountPath: "/volume", scheme: "https" } as const;
    const files = renderVolumeFiles(attributes, sampleVolume(one), forAll);
    if (!files.ok) throw new Error("refused");
    const host = "c-harbor.team-a.svc.cluster.local";
    expect(parse(files.value.get("buildkitd.toml") ?? "").registry).to.deep.equal({
      [host]: { http: false, ca: ["/mine/ca.crt"] },
    });
    expect(files.value.get(`certs.d/${host}/hosts.toml`)).to.contain(`server = "https://${host}"`);
  });
});

describe("the files that a volume leaves out", () => {
  const left: readonly [claim: string, leaveOut: readonly string[], gone: readonly string[]][] = [
    ["may be built-in ones", ["context.token", ".env"], ["context.token", ".env"]],
    ["may be those of a configuration", ["config.json"], ["config.json"]],
    [
      "may be a whole folder",
      ["certs.d"],
      [
        "certs.d/c-harbor.team-a.svc.cluster.local/hosts.toml",
        "certs.d/c-harbor.team-a.svc.cluster.local/ca.crt",
      ],
    ],
    [
      "may be all",
      [...builtIn, "config.json", "certs.d"],
      [
        ...builtIn,
        "config.json",
        "certs.d/c-harbor.team-a.svc.cluster.local/hosts.toml",
        "certs.d/c-harbor.team-a.svc.cluster.local/ca.crt",
      ],
    ],
  ];
  const configurations = ["docker-config", "containerd"] as const;
  const all = [...render(sampleVolume(one), { configurations }).keys()];
  for (const [claim, leaveOut, gone] of left) {
    it(claim, () => {
      const files = render(sampleVolume(one), { configurations, leaveOut });
      expect([...files.keys()]).to.have.members(all.filter((name) => !gone.includes(name)));
    });
  }

  it("have to be there: a misspelt one would stay in the volume", () => {
    const leaveOut = ["contxt.token", "ca.crt", "config.json", "ca"];
    const files = renderVolumeFiles({ ...nothingMore, leaveOut }, sampleVolume(one));
    const wanted = `wanted a file of this volume after "!": ${builtIn.join(", ")}`;
    expect(files.ok ? "" : describeProblems(files.problems)).to.equal(
      ["!contxt.token", "!config.json", "!ca"]
        .map((name) => `configuration.names: found "${name}", ${wanted}`)
        .join("; "),
    );
  });
});

describe("the files of a volume, whatever attributes and addresses are accepted", () => {
  const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?$/);
  const ref = fc.tuple(label, label).map((parts) => parts.join("/"));
  const registry = fc
    .tuple(
      fc.constantFrom("http://", "https://"),
      fc.oneof(
        fc.constantFrom("docker.io", "10.1.2.3", "[2001:db8::7]"),
        fc.stringMatching(/^[A-Za-z][A-Za-z0-9_-]{0,5}[a-z](\.[a-z]{2,5}){1,3}$/),
      ),
      fc.constantFrom("", ":443", ":8443", ":80/base/path"),
    )
    .map((parts) => parseRegistryAddress(parts.join(""), "address"))
    .map((address) => (address.ok ? address.value.imageHost : undefined));
  const hosts: fc.Arbitrary<ProxyHostsOf> = fc.oneof(
    fc.constantFrom("cluster.local", "k8s.example.com").map(serviceHosts),
    fc
      .subarray(["http", "https"] as const, { minLength: 1 })
      .map((schemes) =>
        listenerHosts(
          Object.fromEntries(
            schemes.map((scheme) => [scheme, scheme === "http" ? "127.0.0.1:5080" : "[::1]:5443"]),
          ),
        ),
      ),
  );
  const configuration = fc.constantFrom<ConfigurationName>(
    ...(["docker-config", "buildkitd", "registries-conf", "containerd"] as const),
  );
  const settings = fc.record(
    {
      mirror: fc.constantFrom<unknown>(true, false, "true", "false"),
      scheme: fc.constantFrom("http", "https"),
      mountPath: fc.stringMatching(/^(\/[A-Za-z0-9_.-]{1,5}){1,3}$/),
    },
    { requiredKeys: ["mirror"] },
  );
  const volume = fc.record({
    connectors: fc.dictionary(ref, fc.option(registry, { nil: undefined }), {
      minKeys: 1,
      maxKeys: 4,
    }),
    configurations: fc.uniqueArray(configuration),
    settings,
    hosts,
    leaveOut: fc.subarray(builtIn),
    token: fc.stringMatching(/^[A-Za-z0-9._~+/-]{1,20}={0,2}$/),
  });

  /** The files of such a volume, from the attributes' own text, and what they are made of. */
  function rendered({ connectors, configurations, settings, hosts, leaveOut, token }: Sample) {
    const { mountPath, ...withoutPath } = settings;
    const attributes = parseVolumeAttributes(
      {
        connectors: Object.keys(connectors).join(","),
        "configuration.names": [...configurations, ...leaveOut.map((name) => `!${name}`)].join(","),
        "configuration.params": JSON.stringify({
          env: mountPath === undefined ? {} : { mountPath },
          buildkitd: settings,
          containerd: settings,
          "registries-conf": withoutPath,
        }),
      },
      "default",
    );
    if (!attributes.ok) throw new Error(describeProblems(attributes.problems));
    const [first, ...others] = attributes.value.connectors.map((ref) => {
      const imageHost = connectors[`${ref.namespace}/${ref.name}`];
      return { ref, proxy: hosts(ref), imageHost };
    });
    if (first === undefined) throw new Error("no connectors");
    const contents = { ...sampleVolume(one), connectors: [first, ...others], token } as const;
    const mirrored = String(settings.mirror) === "true" ? Object.values(connectors) : [];
    const proxies = contents.connectors.flatMap(({ proxy }) => [proxy.http, proxy.https]);
    return {
      files: render(contents, attributes.value),
      configurations: attributes.value.configurations,
      proxies: unique(proxies),
      tlsProxies: unique(contents.connectors.map(({ proxy }) => proxy.https)),
      imageHosts: unique(mirrored),
    };
  }
  type Sample = typeof volume extends fc.Arbitrary<infer T> ? T : never;
  const unique = (items: readonly (string | undefined)[]): string[] => [
    ...new Set(items.filter((item) => item !== undefined)),
  ];

  it("no file leaves the volume or is a folder of another", () => {
    fc.assert(
      fc.property(volume, (sample) => {
        const paths = [...rendered(sample).files.keys()];
        for (const path of paths) {
          expect(path).to.match(/^[A-Za-z0-9._:[\]-]+(\/[A-Za-z0-9._:[\]-]+)*$/);
          expect(path.split("/")).not.to.include.oneOf(["", ".", ".."]);
          expect(paths.filter((other) => other.startsWith(`${path}/`))).to.deep.equal([]);
        }
      }),
    );
  }).timeout(20_000);

  it("every file can be read", () => {
    const readers: readonly [name: RegExp, read: (text: string) => unknown][] = [
      [/\.(toml|conf)$/, parse],
      [/\.json$/, JSON.parse],
      [/\.proxy$|proxyAddress$/, (text) => new URL(text)],
      [
        /\.env$/,
        (text) =>
          expect(text).to.match(/^(\w+_(proxy|PROXY)=[\x21-\x7e]+\n){6}(\w+=\/[\w./-]+\n)*$/),
      ],
      [/token$|(crt|cert|Cert)$/, (text) => expect(text).not.to.equal("")],
    ];
    fc.assert(
      fc.property(volume, (sample) => {
        for (const [path, text] of rendered(sample).files) {
          const reader = readers.find(([name]) => name.test(path));
          expect(reader, path).not.to.equal(undefined);
          expect(() => reader?.[1](text), path).not.to.throw();
        }
      }),
    );
  }).timeout(20_000);

  /** The hosts that each kind of file has. */
  function hostsOf(files: VolumeFiles): Record<string, readonly string[]> {
    const toml = (path: string) => parse(files.get(path) ?? "").registry ?? {};
    const folders = (file: string): string[] =>
      [...files.keys()].flatMap((path) => path.match(`^certs.d/(.*)/${file}$`)?.[1] ?? []);
    return {
      "config.json": Object.keys(JSON.parse(files.get("config.json") ?? '{"auths": {}}').auths),
      "buildkitd.toml": Object.keys(toml("buildkitd.toml")),
      "registries.conf": unique(
        Object.values(toml("registries.conf") as { prefix?: string }[]).map(({ prefix }) => prefix),
      ),
      "hosts.toml": folders("hosts.toml"),
      "ca.crt": folders("ca.crt"),
    };
  }

  it("every file has exactly the hosts that it should have", () => {
    fc.assert(
      fc.property(volume, (sample) => {
        const { files, configurations, proxies, tlsProxies, imageHosts } = rendered(sample);
        const where = (hosts: readonly string[], ...names: readonly ConfigurationName[]) =>
          names.some((name) => configurations.includes(name)) ? hosts : [];
        const verified = imageHosts.filter((host) =>
          files.get(`certs.d/${host}/hosts.toml`)?.includes('ca = "ca.crt"'),
        );
        const expected: Record<string, readonly string[]> = {
          "config.json": where(proxies, "docker-config"),
          "buildkitd.toml": where([...proxies, ...imageHosts], "buildkitd"),
          "registries.conf": where(imageHosts, "registries-conf"),
          "hosts.toml": where([...proxies, ...imageHosts], "containerd"),
          "ca.crt": unique([...where(tlsProxies, "registries-conf", "containerd"), ...verified]),
        };
        for (const [file, hosts] of Object.entries(hostsOf(files))) {
          expect(hosts, file).to.have.members([...(expected[file] ?? [])]);
        }
      }),
      { numRuns: 300 },
    );
  }).timeout(20_000);
});
