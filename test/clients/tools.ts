import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { type Descriptor, sha256, type TestImage } from "../support/oci-image.ts";
import { versionOf } from "./client-programs.ts";
import { diffIdsOf } from "./fixtures.ts";
import type { Place, Size } from "./place.ts";
import type { RegistryView } from "./registry-view.ts";

/** A pull that has been made. */
export interface Pull {
  readonly place: Place;
  readonly size: Size;
  readonly image: TestImage;
  /** The image as the command named it. */
  readonly name: string;
  readonly how: "proxied" | "own";
  readonly registry: RegistryView;
}

/** What is known of a tool beside the commands of its example. */
export interface Tool {
  /** As its folder in examples/ is called. */
  readonly name: string;
  /** Whether the system's program is meant where there is one of ours, too. */
  readonly ofTheSystem?: boolean;
  readonly version: (place: Place) => Promise<string>;
  /** Whether it pushes what it is given as it is; otherwise it makes something of it, and says its digest. */
  readonly keepsDigests: boolean;
  /** Fails where the tool does not have that image now, byte for byte. */
  readonly expectPulled: (pull: Pull) => Promise<void>;
  /** The tag of what it pushes, 1 unless said otherwise. */
  readonly tag?: string;
  /** The repository whose layers a mount is expected for, copy unless said otherwise. */
  readonly mountsInto?: string;
  /** Whether it has layers of 200 MiB. */
  readonly hasLargeLayers: boolean;
  /** Whether it asks the registry itself, without a login, for what it has not got from the proxy. */
  readonly asksTheRegistryItself?: boolean;
  /** Whether it looks for a name without a registry in those of the machine's settings. */
  readonly searchesRegistries?: boolean;
  /** What a user of it should know, one sentence each. */
  readonly notes: readonly string[];
}

const fromGo = (program: string) => (): Promise<string> => Promise.resolve(versionOf(program));

/** Debian's say `skopeo version 1.9.3`, with more or less around it. */
const fromDebian =
  (program: string) =>
  async ({ sh }: Place): Promise<string> => {
    const { stdout } = await sh(`${program} --version`);
    return / (\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? stdout;
  };

/** An OCI layout in the folder `pulled`. */
async function expectLayout({ place, size, image }: Pull): Promise<void> {
  const folder = join(place.folder(size), "pulled");
  const { manifests } = JSON.parse(await readFile(join(folder, "index.json"), "utf8"));
  expect(manifests.map(({ digest }: Descriptor) => digest)).to.deep.equal([image.manifest.digest]);
  for (const digest of image.blobs.keys()) {
    const bytes = await readFile(join(folder, "blobs", digest.replace(":", "/")));
    expect(sha256(bytes)).to.equal(digest);
  }
  await rm(folder, { recursive: true });
}

/** What buildah and podman unpack they have checked; they remember the manifest's digest. */
async function expectInStorage({ place, size, image, name }: Pull): Promise<void> {
  const { stdout } = await place.sh(`${place.example.name} images --digests ${name}`, { size });
  expect(stdout).to.include(image.manifest.digest);
}

async function expectInContainerd({ place, size, image, name }: Pull): Promise<void> {
  const { stdout } = await place.sh(`ctr images ls name==${name}`, { size });
  expect(stdout).to.include(image.manifest.digest);
  for (const digest of image.blobs.keys()) {
    const { stdout } = await place.sh(`ctr content get ${digest} | sha256sum`);
    expect(`sha256:${stdout.split(" ")[0]}`).to.equal(digest);
  }
}

/** A base image is pulled to build on it, so its layers are in what was built and pushed. */
async function expectBuiltOn({ place, size, image, how, registry }: Pull): Promise<void> {
  const repository = how === "own" ? "mirrored-app" : "app";
  const { layers, diffIds } = await registry.read(`${place.prefix}/${size}/${repository}`, "1");
  expect(layers.length).to.be.above(image.layers.length);
  expect(layers).to.include.members(image.layers.map(({ digest }) => digest));
  expect(diffIds).to.include.members(diffIdsOf(image));
}

/** The chart is one layer, and a file after the pull. */
async function expectChart({ place, size, registry }: Pull): Promise<void> {
  const folder = join(place.folder(size), "pulled");
  const [file = ""] = await readdir(folder);
  const { layers } = await registry.read(`${place.prefix}/${size}/app`, "1.0.0");
  expect(layers).to.deep.equal([sha256(await readFile(join(folder, file)))]);
  await rm(folder, { recursive: true });
}

const certDirNote =
  "`--cert-dir` must be the folder of one host in the volume's `certs.d`, not the volume.";

export const tools: readonly Tool[] = [
  {
    name: "skopeo",
    version: fromDebian("skopeo"),
    keepsDigests: true,
    expectPulled: expectLayout,
    hasLargeLayers: true,
    notes: [
      certDirNote,
      "`skopeo inspect` also lists the tags, but not through a mirror: use `--no-tags` with the registry's own name.",
    ],
  },
  {
    name: "buildah",
    version: fromDebian("buildah"),
    keepsDigests: false,
    expectPulled: expectInStorage,
    hasLargeLayers: true,
    searchesRegistries: true,
    notes: [
      certDirNote,
      "With the proxy variables of the volume's `.env` set, `--http-proxy=false` keeps them, and the token in them, out of `RUN` steps.",
    ],
  },
  {
    name: "podman",
    version: fromDebian("podman"),
    keepsDigests: false,
    expectPulled: expectInStorage,
    hasLargeLayers: true,
    searchesRegistries: true,
    notes: [certDirNote],
  },
  {
    name: "buildkit",
    version: fromGo("buildkitd"),
    keepsDigests: false,
    expectPulled: expectBuiltOn,
    asksTheRegistryItself: true,
    hasLargeLayers: true,
    notes: [
      "The login comes from buildctl (or `docker buildx`), which reads it once when a build starts; addresses and certificates come from the daemon's configuration.",
      "A cache in the registry also works (`--export-cache`, `--import-cache`).",
      "It mounts layers that it has pushed before, not those that it has only pulled.",
      "If a mirror does not have an image, or refuses it, buildkit asks the registry itself, without a login; no setting prevents that.",
    ],
  },
  {
    name: "containerd",
    version: fromGo("containerd"),
    keepsDigests: true,
    expectPulled: expectInContainerd,
    hasLargeLayers: true,
    notes: [
      "The login is in `hosts.toml`, since containerd uses no other place for the logins of mirrors.",
    ],
  },
  {
    name: "containerd",
    ofTheSystem: true,
    version: fromDebian("containerd"),
    keepsDigests: true,
    expectPulled: expectInContainerd,
    hasLargeLayers: true,
    notes: [],
  },
  {
    name: "crane",
    version: fromGo("crane"),
    keepsDigests: true,
    expectPulled: expectLayout,
    hasLargeLayers: true,
    notes: [
      "Over TLS at a loopback address it can't follow the pages of a long list of tags: its library (go-containerregistry, as in ko and kaniko) takes every loopback address for plain HTTP. Use the HTTP listener, or a host name other than `localhost`.",
    ],
  },
  {
    name: "oras",
    version: fromGo("oras"),
    keepsDigests: true,
    expectPulled: expectLayout,
    hasLargeLayers: true,
    notes: ["`--ca-file $VOLUME/ca.crt` does what `SSL_CERT_FILE` does."],
  },
  {
    name: "regctl",
    version: fromGo("regctl"),
    keepsDigests: true,
    expectPulled: expectLayout,
    hasLargeLayers: true,
    notes: [],
  },
  {
    name: "helm",
    version: fromGo("helm"),
    keepsDigests: false,
    expectPulled: expectChart,
    tag: "1.0.0",
    hasLargeLayers: false,
    notes: [
      "Charts have no platforms, share no layers, and are small: helm itself loads none over 100 MiB.",
    ],
  },
  {
    name: "ko",
    version: fromGo("ko"),
    keepsDigests: false,
    expectPulled: expectBuiltOn,
    mountsInto: "app",
    hasLargeLayers: true,
    notes: ["Its bill of materials is an image with a tag of its own, not a referrer."],
  },
];
