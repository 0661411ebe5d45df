import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { parse as parseToml } from "@iarna/toml";
import { expect } from "chai";
import { parse as parseYaml } from "yaml";
import { parseRegistryAddress } from "../../src/connector/registry-address.ts";
import type { NodeFiles } from "../../src/node/node-file.ts";
import {
  type InstalledNodeImages,
  installNodeImages,
  type NodePlaces,
  registryHosts,
  removeNodeImages,
  type WantedNodeImages,
} from "../../src/node/node-images.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { filesKilledAt, quickFiles } from "./node-files.ts";

const pluginName = "oci-connector-images";
const caName = "oci-connector-ca.pem";

const ecr = {
  name: "ecr-credential-provider",
  matchImages: ["*.dkr.ecr.*.amazonaws.com"],
  defaultCacheDuration: "12h",
  apiVersion: "credentialprovider.kubelet.k8s.io/v1",
};
const apiVersion = "kubelet.config.k8s.io/v1";
const kind = "CredentialProviderConfig";
const foreignJson = `${JSON.stringify({ apiVersion, kind, providers: [ecr] }, null, 4)}\n`;
const foreignYaml = `# by the vendor
apiVersion: ${apiVersion}
kind: ${kind}
providers:
  - name: ecr-credential-provider # theirs
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
`;

const wanted: WantedNodeImages = {
  imageHosts: new Set(["harbor.example.com", "harbor.example.com:8443", "*.corp.example.com"]),
  hosts: ["harbor.example.com", "harbor.example.com:8443", "a.corp.example.com"],
  proxy: { url: "https://10.96.0.7", caCertificates: "first authority\n" },
};
/** One registry whose folder is somebody's already, and one that has none. */
const wantedInSteps: WantedNodeImages = {
  ...wanted,
  hosts: ["harbor.example.com", "a.corp.example.com"],
};
const changed: WantedNodeImages = {
  imageHosts: new Set(["harbor.example.com", "ghcr.io"]),
  hosts: ["harbor.example.com", "ghcr.io"],
  proxy: { url: "https://10.96.0.9", caCertificates: "first authority\nsecond authority\n" },
};

describe("what a node is told of the images of its Pods", function () {
  this.timeout(120_000); // hundreds of steps, each with an installation of its own
  const resources = cleanup();
  let root: string;
  let places: NodePlaces;

  /** @param file the kubelet's file of providers; where it is not given, its flag names the folder */
  async function createNode(file?: string): Promise<void> {
    root = resources.add(makeTempFolder("node")).path;
    const [certs, plugins, config] = ["certs.d", "bin", "config.d"].map((name) => join(root, name));
    for (const folder of [certs, plugins, config]) await mkdir(folder ?? "");
    places = {
      certs: certs ?? "",
      plugins: plugins ?? "",
      config: { folder: config ?? "", file },
    };
  }
  afterEach(resources.stop);

  const install = (what = wanted, files = quickFiles): Promise<InstalledNodeImages> =>
    installNodeImages(files, places, what);
  const remove = (mayBeMissing = false, files = quickFiles): Promise<boolean> =>
    removeNodeImages(files, places, mayBeMissing);
  const put = async (path: string, content: string, mode = 0o644): Promise<void> => {
    const full = join(root, path);
    await mkdir(join(full, ".."), { recursive: true });
    await writeFile(full, content);
    await chmod(full, mode);
  };
  const read = (path: string): Promise<string> => readFile(join(root, path), "utf8");

  /** Everything on the node: folders, and files with their bytes and modes. */
  async function snapshot(): Promise<Readonly<Record<string, string>>> {
    const entries = await readdir(root, { recursive: true, withFileTypes: true });
    const pairs = entries.map(async (entry) => {
      const path = join(entry.parentPath, entry.name);
      const mode = ((await lstat(path)).mode & 0o777).toString(8);
      if (entry.isDirectory()) return [path, `folder ${mode}`] as const;
      if (entry.isSymbolicLink()) return [path, `link to ${await readlink(path)}`] as const;
      return [path, `${mode} ${await readFile(path, "latin1")}`] as const;
    });
    return Object.fromEntries(await Promise.all(pairs));
  }

  /** What a kubelet and a container runtime would trip over at this moment. */
  async function checkCanStart(named: string): Promise<void> {
    const config = parseYaml(await read(named)) as { providers: { name: string }[] };
    expect(config.providers).to.not.have.length(0);
    if (config.providers.some(({ name }) => name === pluginName)) {
      const { mode } = await lstat(join(places.plugins, pluginName));
      expect(mode & 0o777).to.equal(0o755);
    }
    for (const host of await readdir(places.certs)) {
      const text = await read(`certs.d/${host}/hosts.toml`).catch(() => undefined);
      if (text === undefined) continue;
      expect(parseToml(text)).to.have.property("server");
      if (!text.includes(caName)) continue;
      expect(await read(`certs.d/${host}/${caName}`)).to.contain("first authority\n");
    }
  }

  it("is to ask the proxy for these registries, and no other host", async () => {
    await createNode();
    expect(await install()).to.deep.equal({ ok: true, skipped: [] });
    expect((await readdir(places.certs)).toSorted()).to.deep.equal([
      "a.corp.example.com",
      "harbor.example.com",
      "harbor.example.com:8443",
    ]);
    const entry = { capabilities: ["pull", "resolve"], ca: caName };
    expect(parseToml(await read("certs.d/harbor.example.com:8443/hosts.toml"))).to.deep.equal({
      server: "https://10.96.0.7",
      capabilities: ["push"],
      ca: caName,
      host: { "https://10.96.0.7": entry },
    });
    expect(await read(`certs.d/harbor.example.com/${caName}`)).to.equal("first authority\n");
    expect(parseYaml(await read("config.d/oci-connector.yaml"))).to.deep.equal({
      apiVersion,
      kind,
      providers: [
        {
          name: pluginName,
          matchImages: ["harbor.example.com", "harbor.example.com:8443", "*.corp.example.com"],
          defaultCacheDuration: "0s",
          apiVersion: "credentialprovider.kubelet.k8s.io/v1",
          args: [places.certs],
          tokenAttributes: {
            serviceAccountTokenAudience: "connectors-images",
            cacheType: "Token",
            requireServiceAccount: true,
            optionalServiceAccountAnnotationKeys: ["connectors.cpaas.io/connector"],
          },
        },
      ],
    });
    expect((await lstat(join(places.plugins, pluginName))).mode & 0o777).to.equal(0o755);
  });

  it("is written once, and again where somebody has changed it", async () => {
    await createNode();
    await install();
    const times = async (): Promise<readonly number[]> =>
      Promise.all(Object.keys(await snapshot()).map(async (path) => (await lstat(path)).ctimeMs));
    const before = await times();
    const files = await snapshot();
    await install();
    expect(await times()).to.deep.equal(before);
    await put("certs.d/harbor.example.com/oci-connector-ca.pem", "somebody's");
    await put(`bin/${pluginName}`, await read(`bin/${pluginName}`), 0o644);
    await rm(join(places.config.folder, "oci-connector.yaml"));
    await rm(join(places.certs, "a.corp.example.com/hosts.toml"));
    await install();
    expect(await snapshot()).to.deep.equal(files);
  });

  it("follows the list, the proxy's address and its authorities", async () => {
    await createNode();
    await install();
    await install(changed);
    expect((await readdir(places.certs)).toSorted()).to.deep.equal([
      "ghcr.io",
      "harbor.example.com",
    ]);
    expect(await read("certs.d/harbor.example.com/hosts.toml")).to.contain("https://10.96.0.9");
    expect(await read(`certs.d/ghcr.io/${caName}`)).to.contain("second authority");
  });

  it("stays away from what others have said of a registry, and reports it", async () => {
    await createNode();
    const foreign = 'server = "https://harbor.example.com"\n';
    await put("certs.d/harbor.example.com/hosts.toml", foreign);
    await put("certs.d/harbor.example.com_8443_/hosts.toml", foreign);
    await put("certs.d/_default/hosts.toml", foreign);
    await put("certs.d/a.corp.example.com/ca.crt", "the registry's own certificate");
    await put("certs.d/other.example.com/client.cert", "somebody's");
    const before = await snapshot();
    const installed = await install();
    expect(installed.ok && installed.skipped.map(({ host }) => host)).to.deep.equal([
      "harbor.example.com",
      "harbor.example.com:8443",
    ]);
    expect(installed.ok && installed.skipped[0]?.reason).to.match(
      /certs\.d\/harbor\.example\.com\/hosts\.toml was not written by oci-connector: remove it/,
    );
    expect(await readdir(join(places.certs, "harbor.example.com"))).to.deep.equal(["hosts.toml"]);
    expect(await readdir(join(places.certs, "a.corp.example.com"))).to.have.members([
      "ca.crt",
      "hosts.toml",
      caName,
    ]);
    expect(await remove(true)).to.equal(true);
    expect(await snapshot()).to.deep.equal(before);
  });

  it("is at most 200 registries; further ones are reported", async () => {
    await createNode();
    const hosts = Array.from({ length: 202 }, (_, index) => `r${index}.corp.example.com`);
    const installed = await install({ ...wanted, hosts });
    expect(await readdir(places.certs)).to.have.length(200);
    expect(installed.ok && installed.skipped.map(({ host }) => host)).to.deep.equal(
      hosts.slice(200),
    );
  });

  for (const [file, content] of [
    ["config.json", foreignJson],
    ["config.yaml", foreignYaml],
  ] as const) {
    it(`is merged into the vendor's ${file}, which comes back as the same file`, async () => {
      await createNode(file);
      await put(`config.d/${file}`, content, 0o600);
      const before = await snapshot();
      const { ino, mtimeMs } = await lstat(join(places.config.folder, file));
      for (const _ of ["install", "install again"]) {
        await install();
        await install(changed);
        const merged = await read(`config.d/${file}`);
        const { providers } = parseYaml(merged) as { providers: { matchImages: string[] }[] };
        expect(providers).to.have.length(2);
        expect(providers[0]).to.deep.equal(ecr);
        expect(providers[1]?.matchImages).to.deep.equal(["harbor.example.com", "ghcr.io"]);
        expect((await lstat(join(places.config.folder, file))).mode & 0o777).to.equal(0o600);
        if (file === "config.yaml") expect(merged).to.contain("# by the vendor");
        else expect(JSON.parse(merged)).to.have.property("kind", kind);
        expect(await remove()).to.equal(true);
        expect(await snapshot()).to.deep.equal(before);
        const after = await lstat(join(places.config.folder, file));
        expect([after.ino, after.mtimeMs]).to.deep.equal([ino, mtimeMs]);
      }
    });

    it(`is taken out of the vendor's ${file} where that was changed since`, async () => {
      await createNode(file);
      await put(`config.d/${file}`, content);
      await install();
      const merged = await read(`config.d/${file}`);
      await put(`config.d/${file}`, merged.replace("12h", "6h"));
      await install(changed);
      expect(await remove()).to.equal(true);
      const left = parseYaml(await read(`config.d/${file}`)) as object;
      expect(left).to.deep.equal({
        apiVersion,
        kind,
        providers: [{ ...ecr, defaultCacheDuration: "6h" }],
      });
      expect(await readdir(places.config.folder)).to.deep.equal([file]);
    });

    it(`is merged again, with another backup, where ${file} was written anew`, async () => {
      await createNode(file);
      await put(`config.d/${file}`, content);
      await install();
      await put(`config.d/${file}`, content.replace("12h", "1h"));
      const before = await snapshot();
      await install();
      expect(await read(`config.d/${file}`)).to.contain(pluginName);
      await remove();
      expect(await read(`config.d/${file}`)).to.equal(content.replace("12h", "1h"));
      expect(Object.keys(before)).to.include(join(places.config.folder, file));
    });
  }

  it("is nothing where a configuration can't take it: nothing is written, and the reason said", async () => {
    for (const [content, reason] of [
      [foreignYaml.replace(apiVersion, "kubelet.config.k8s.io/v1beta1"), /v1beta1, but/],
      ["providers: [", /neither YAML nor JSON/],
    ] as const) {
      await createNode("config.yaml");
      await put("config.d/config.yaml", content);
      const before = await snapshot();
      const installed = await install();
      expect(installed.ok ? "" : installed.reason).to.match(reason);
      expect(await snapshot()).to.deep.equal(before);
    }
  });

  it("is nothing where the configuration is a link, or the plug-in somebody else's", async () => {
    await createNode("config.yaml");
    await put("elsewhere.yaml", foreignYaml);
    await symlink("../elsewhere.yaml", join(places.config.folder, "config.yaml"));
    const linked = await install();
    expect(linked.ok ? "" : linked.reason).to.contain("is a link or no file");
    await createNode();
    await put(`bin/${pluginName}`, "#!/bin/sh\necho theirs\n", 0o755);
    const before = await snapshot();
    const installed = await install();
    expect(installed.ok ? "" : installed.reason).to.contain("was not written by oci-connector");
    await remove(true);
    expect(await snapshot()).to.deep.equal(before);
  });

  it("is nothing where another file of the folder has the provider: a kubelet takes none twice", async () => {
    await createNode();
    const copy = { apiVersion, kind, providers: [{ ...ecr, name: pluginName }] };
    await put("config.d/90-copy.yaml", JSON.stringify(copy));
    const installed = await install();
    expect(installed.ok ? "" : installed.reason).to.match(/90-copy.yaml has a provider/);
    expect(await readdir(places.certs)).to.deep.equal([]);
  });

  it("leaves a configuration of ours alone, and the plug-in, until it is known that no flag names them", async () => {
    for (const file of [undefined, "config.yaml"]) {
      await createNode(file);
      const before = await snapshot();
      await install();
      expect(await remove()).to.equal(false);
      await checkCanStart(`config.d/${file ?? "oci-connector.yaml"}`);
      expect(await readdir(places.certs)).to.deep.equal([]);
      expect(await remove(true)).to.equal(true);
      expect(await snapshot()).to.deep.equal(before);
    }
  });

  it("is taken out of the vendor's file also where the settings don't name that any more", async () => {
    for (const mayBeMissing of [false, true]) {
      await createNode("ecr.yaml");
      await put("config.d/ecr.yaml", foreignYaml);
      const before = await snapshot();
      await install();
      places = { ...places, config: { ...places.config, file: undefined } };
      expect(await remove(mayBeMissing)).to.equal(true);
      expect(await snapshot()).to.deep.equal(before);
    }
  });

  it("leaves no backup of such a file, also where that was changed since", async () => {
    await createNode("ecr.yaml");
    await put("config.d/ecr.yaml", foreignYaml);
    await install();
    const merged = await read("config.d/ecr.yaml");
    await put("config.d/ecr.yaml", merged.replace("12h", "6h"));
    places = { ...places, config: { ...places.config, file: undefined } };
    expect(await remove()).to.equal(true);
    expect(await readdir(places.config.folder)).to.deep.equal(["ecr.yaml"]);
    expect(await read("config.d/ecr.yaml")).to.equal(foreignYaml.replace("12h", "6h"));
  });

  it("leaves the plug-in as long as any configuration in the folder names it", async () => {
    await createNode();
    await put("config.d/ecr.yaml", foreignYaml);
    await install();
    places = { ...places, config: { ...places.config, file: "ecr.yaml" } };
    expect(await remove(true)).to.equal(false);
    await checkCanStart("config.d/oci-connector.yaml");
  });

  it("takes a configuration of ours away where the folder has others", async () => {
    await createNode();
    await put("config.d/ecr.yaml", foreignYaml);
    const before = await snapshot();
    await install();
    expect(await remove()).to.equal(true);
    expect(await snapshot()).to.deep.equal(before);
  });

  /** Kills an action before each of its steps in turn. */
  async function killAtEachStep(
    prepare: () => Promise<void>,
    action: (files: NodeFiles) => Promise<unknown>,
    check: () => Promise<void>,
  ): Promise<number> {
    for (let step = 1; ; step++) {
      await prepare();
      const files = filesKilledAt(step);
      const ended = await action(files).then(
        () => true,
        (error: Error) => {
          if (error.message !== "killed") throw error;
          return false;
        },
      );
      await check();
      if (ended) return step - 1;
      await resources.stop();
    }
  }

  for (const file of ["config.yaml", undefined] as const) {
    const named = `config.d/${file ?? "ecr.yaml"}`;
    let before: Readonly<Record<string, string>>;
    const prepare = async (): Promise<void> => {
      await createNode(file);
      await put(named, foreignYaml, 0o640);
      await put("certs.d/harbor.example.com/ca.crt", "the registry's own certificate");
      await put("certs.d/quay.io/hosts.toml", 'server = "https://quay.io"\n');
      before = await snapshot();
    };
    const where = file === undefined ? "as a file of its own" : "merged into a file";

    it(`is complete after another start, ${where}, when it is killed at any step of an installation`, async () => {
      let complete: Readonly<Record<string, string>> = {};
      const relative = async (): Promise<Readonly<Record<string, string>>> =>
        Object.fromEntries(
          Object.entries(await snapshot()).map(([path, text]) => [
            path.slice(root.length),
            text.replaceAll(root, ""),
          ]),
        );
      await prepare();
      await install(wantedInSteps);
      complete = await relative();
      const steps = await killAtEachStep(
        prepare,
        (files) => install(wantedInSteps, files),
        async () => {
          await checkCanStart(named);
          await install(wantedInSteps);
          expect(await relative()).to.deep.equal(complete);
          expect(await remove()).to.equal(true);
          expect(await snapshot()).to.deep.equal(before);
        },
      );
      expect(steps).to.be.above(20);
    });

    it(`leaves nothing, ${where}, when it is removed after an installation that was killed at any step`, async () => {
      await killAtEachStep(
        prepare,
        (files) => install(wantedInSteps, files),
        async () => {
          expect(await remove()).to.equal(true);
          expect(await snapshot()).to.deep.equal(before);
        },
      );
    });

    it(`lets kubelets start, ${where}, when a change of it is killed at any step`, async () => {
      await killAtEachStep(
        async () => {
          await prepare();
          await install(wantedInSteps);
        },
        (files) => install(changed, files),
        async () => {
          await checkCanStart(named);
          await install(changed);
          expect((await readdir(places.certs)).toSorted()).to.deep.equal([
            "ghcr.io",
            "harbor.example.com",
            "quay.io",
          ]);
          expect(await remove()).to.equal(true);
          expect(await snapshot()).to.deep.equal(before);
        },
      );
    });

    it(`is gone after another start, ${where}, when it is killed at any step of a removal`, async () => {
      const steps = await killAtEachStep(
        async () => {
          await prepare();
          await install(wantedInSteps);
        },
        (files) => remove(false, files),
        async () => {
          await checkCanStart(named);
          expect(await remove()).to.equal(true);
          expect(await snapshot()).to.deep.equal(before);
        },
      );
      expect(steps).to.be.above(5);
    });
  }

  it("has folders of the registries that are named, and by patterns those of shared connectors", () => {
    const at = (address: string) => {
      const parsed = parseRegistryAddress(address, "");
      if (!parsed.ok) throw new Error(address);
      return parsed.value;
    };
    const hosts = registryHosts(new Set(["docker.io", "*.example.com"]), [
      at("https://b.example.com/base"),
      at("https://a.example.com:8443"),
      at("https://b.example.com"),
      at("http://c.example.com"),
      at("https://too.deep.example.com"),
      at("https://elsewhere.test"),
      at("https://registry-1.docker.io"),
    ]);
    expect(hosts).to.deep.equal(["docker.io", "b.example.com"]);
  });
});
