import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect } from "chai";
import { parse } from "smol-toml";
import { createAuthority, createLeafIssuer } from "../../src/certificate-authority.ts";
import type { ConfigurationSettings } from "../../src/connector/configuration-params.ts";
import { renderDockerConfig } from "../../src/connector/docker-config.ts";
import {
  listenerHosts,
  type ProxyHostsOf,
  serviceHosts,
} from "../../src/connector/proxy-address.ts";
import { renderRegistriesConf } from "../../src/connector/registries-conf.ts";
import type { VolumeContents } from "../../src/connector/volume-contents.ts";
import { cleanup } from "../support/cleanup.ts";
import { type Clients, prepareClients } from "../support/clients.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type RecordingRegistry, startRecordingRegistry } from "./recording-registry.ts";
import { sampleAuthority, sampleToken, sampleVolume } from "./sample-volume.ts";

const cluster = serviceHosts("cluster.local");
const harbor = "c-harbor.team-a.svc.cluster.local";
const path = "namespaces/team-a/connectors";
const one = ["team-a/harbor=harbor.example.com"] as const;
const shared = [
  ...one,
  "team-a/other=harbor.example.com",
  "team-a/hub=docker.io",
  "team-a/gone",
] as const;

describe("registries.conf", () => {
  const both = listenerHosts({ http: "127.0.0.1:5080", https: "127.0.0.1:5443" });
  const insecure = (location: string) => ({ location, insecure: true });
  const service = (name: string): string => `c-${name}.team-a.svc.cluster.local`;

  const cases: readonly [
    claim: string,
    connectors: readonly [string, ...string[]],
    hosts: ProxyHostsOf,
    settings: ConfigurationSettings,
    registry: readonly object[],
  ][] = [
    ["allows plain HTTP to the proxy in a cluster", one, cluster, {}, [insecure(harbor)]],
    ["has nothing to say where the proxy is on TLS", one, cluster, { scheme: "https" }, []],
    ["allows plain HTTP to the HTTP listener only", one, both, {}, [insecure("127.0.0.1:5080")]],
    [
      "leads a registry's own name to its connector, where mirrors are wanted",
      one,
      cluster,
      { mirror: true },
      [
        insecure(harbor),
        { prefix: "harbor.example.com", location: `${harbor}/${path}/harbor`, insecure: true },
      ],
    ],
    [
      "leads it there on TLS, where that is wanted",
      one,
      cluster,
      { mirror: true, scheme: "https" },
      [{ prefix: "harbor.example.com", location: `${harbor}/${path}/harbor`, insecure: false }],
    ],
    [
      "leads it to the TLS listener, which is preferred",
      one,
      both,
      { mirror: true },
      [
        insecure("127.0.0.1:5080"),
        {
          prefix: "harbor.example.com",
          location: `127.0.0.1:5443/${path}/harbor`,
          insecure: false,
        },
      ],
    ],
    [
      "leads it to several connectors in the volume's order, the last in place of the registry",
      shared,
      cluster,
      { mirror: true },
      [
        ...["harbor", "other", "hub", "gone"].map((name) => insecure(service(name))),
        {
          prefix: "harbor.example.com",
          location: `${service("other")}/${path}/other`,
          insecure: true,
          mirror: [insecure(`${service("harbor")}/${path}/harbor`)],
        },
        { prefix: "docker.io", location: `${service("hub")}/${path}/hub`, insecure: true },
      ],
    ],
  ];
  for (const [claim, connectors, hosts, settings, registry] of cases) {
    it(claim, () => {
      const files = new Map(renderRegistriesConf(sampleVolume(connectors, hosts), settings));
      expect(parse(files.get("registries.conf") ?? "")).to.deep.equal({ registry });
    });
  }

  it("comes with the CA of every host that has TLS, in a folder of its own", () => {
    const files = new Map(renderRegistriesConf(sampleVolume(one, both), {}));
    expect([...files.keys()]).to.deep.equal(["registries.conf", "certs.d/127.0.0.1:5443/ca.crt"]);
    expect(files.get("certs.d/127.0.0.1:5443/ca.crt")).to.equal(sampleAuthority);
  });
});

describe("skopeo and buildah with registries.conf, config.json and certs.d", function () {
  this.timeout(60_000);
  const suite = cleanup();
  const test = cleanup();
  let clients: Clients;

  before(async () => {
    clients = suite.add(await prepareClients());
  });
  after(suite.stop);
  afterEach(test.stop);

  /** Writes the files as the driver does. */
  async function mounted(contents: VolumeContents, settings: ConfigurationSettings) {
    const folder = test.add(makeTempFolder("volume")).path;
    for (const [name, text] of [
      ...renderRegistriesConf(contents, settings),
      ...renderDockerConfig(contents),
    ]) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await writeFile(join(folder, name), text);
    }
    return folder;
  }

  /** Asks for an image's manifest with the files of a volume, on a network that is a proxy's where there is one. */
  async function inspect(
    image: string,
    contents: VolumeContents,
    settings: ConfigurationSettings,
    options: { readonly certificatesOf?: string; readonly network?: RecordingRegistry } = {},
  ) {
    const folder = await mounted(contents, settings);
    const proxy = options.network && `http://${options.network.host}`;
    return await clients.skopeo(
      [
        "inspect",
        "--raw",
        "--registries-conf",
        join(folder, "registries.conf"),
        "--authfile",
        join(folder, "config.json"),
        ...(options.certificatesOf
          ? ["--cert-dir", join(folder, "certs.d", options.certificatesOf)]
          : []),
        `docker://${image}`,
      ],
      { env: proxy === undefined ? {} : { http_proxy: proxy, https_proxy: proxy } },
    );
  }

  const login = `connectors:${sampleToken}`;
  const manifests = ({ requests }: RecordingRegistry) =>
    requests.filter(({ line }) => line.includes("/manifests/"));

  it("asks the Service of the connector on plain HTTP, with the credential of config.json", async () => {
    const network = test.add(await startRecordingRegistry());
    const image = `${harbor}/${path}/harbor/app/web:1`;
    const { stdout, stderr } = await inspect(image, sampleVolume(one), {}, { network });
    expect(stderr).to.equal("");
    expect(stdout).to.contain('"schemaVersion":2');
    expect(manifests(network)).to.deep.equal([
      { line: `GET http://${harbor}/v2/${path}/harbor/app/web/manifests/1`, host: harbor, login },
    ]);
  });

  it("asks the Service for an image of the registry's own name, and never the registry", async () => {
    const network = test.add(await startRecordingRegistry());
    const volume = sampleVolume(one);
    await inspect("harbor.example.com/app/web:1", volume, { mirror: true }, { network });
    expect(manifests(network)).to.deep.equal([
      { line: `GET http://${harbor}/v2/${path}/harbor/app/web/manifests/1`, host: harbor, login },
    ]);
    const others = network.requests.filter(({ line }) => !line.includes(harbor));
    expect(others).to.deep.equal([]);
  });

  it("asks the listener for an image of Docker Hub by its short name", async () => {
    const proxy = test.add(await startRecordingRegistry());
    const volume = sampleVolume(["team-a/hub=docker.io"], listenerHosts({ http: proxy.host }));
    const { stderr } = await inspect("busybox", volume, { mirror: true });
    expect(stderr).to.equal("");
    const line = `GET /v2/${path}/hub/library/busybox/manifests/latest`;
    expect(manifests(proxy)).to.deep.equal([{ line, host: proxy.host, login }]);
  });

  it("asks connectors of one registry in the volume's order until one has the image", async () => {
    const proxy = test.add(await startRecordingRegistry((path) => path.includes("/other/")));
    const network = test.add(await startRecordingRegistry());
    const volume = sampleVolume(shared, listenerHosts({ http: proxy.host }));
    const image = "harbor.example.com/app:1";
    const { stdout } = await inspect(image, volume, { mirror: true }, { network });
    expect(stdout).to.contain('"schemaVersion":2');
    expect(manifests(proxy).map(({ line }) => line)).to.deep.equal([
      `GET /v2/${path}/harbor/app/manifests/1`,
      `GET /v2/${path}/other/app/manifests/1`,
    ]);
    expect(network.requests, "what was asked of the registry itself").to.deep.equal([]);
  });

  it("are the same to buildah, which is told of the file by its environment", async () => {
    const proxy = test.add(await startRecordingRegistry());
    const volume = sampleVolume(one, listenerHosts({ http: proxy.host }));
    const folder = await mounted(volume, { mirror: true });
    await clients.buildah(
      ["pull", "--authfile", join(folder, "config.json"), "harbor.example.com/app:1"],
      { env: { CONTAINERS_REGISTRIES_CONF: join(folder, "registries.conf") } },
    );
    const line = `GET /v2/${path}/harbor/app/manifests/1`;
    expect(manifests(proxy)[0]).to.deep.equal({ line, host: proxy.host, login });
  });

  for (const [claim, image, settings] of [
    ["by the proxy's name", (host: string) => `${host}/${path}/harbor/app:1`, {}],
    ["by the registry's own name", () => "harbor.example.com/app:1", { mirror: true }],
  ] as const) {
    it(`verifies the TLS listener with the folder of its certificate, ${claim}`, async () => {
      const now = new Date();
      const authority = await createAuthority("test", now);
      const leaf = await (await createLeafIssuer(authority))("127.0.0.1", now);
      const proxy = test.add(await startRecordingRegistry(undefined, leaf));
      const volume = {
        ...sampleVolume(one, listenerHosts({ https: proxy.host })),
        caCertificate: authority.certificate,
      };
      const options = { certificatesOf: proxy.host };
      const { stderr } = await inspect(image(proxy.host), volume, settings, options);
      expect(stderr).to.equal("");
      const line = `GET /v2/${path}/harbor/app/manifests/1`;
      expect(manifests(proxy)).to.deep.equal([{ line, host: proxy.host, login }]);

      const distrustful = await inspect(image(proxy.host), volume, settings);
      expect(distrustful.stderr).to.contain("certificate signed by unknown authority");
    });
  }
});
