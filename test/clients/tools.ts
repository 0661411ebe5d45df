import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { type Descriptor, sha256, type TestImage } from "../support/oci-image.ts";
import { versionOf } from "./client-programs.ts";
import type { OtherOperation } from "./example.ts";
import { type Content, diffIdsOf, type Fixtures } from "./fixtures.ts";
import type { Place, Size } from "./place.ts";
import type { RegistryView } from "./registry-view.ts";
import type { RegistryName } from "./workbench.ts";

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

/** An operation of one tool alone, which has been run. */
export interface OtherRun {
  readonly place: Place;
  readonly fixtures: Fixtures;
  readonly registry: RegistryView;
  /** What it has written to its standard output. */
  readonly stdout: string;
  /** The registry's own name of a repository. */
  readonly repository: (name: string) => string;
}

/** Something that a tool does beside what all of them do. */
export interface Other {
  /** A block of the example. */
  readonly operation: OtherOperation;
  /** Where it is done, in docker-registry alone unless said otherwise. */
  readonly registries?: readonly RegistryName[];
  /** What it does, for the table: "`skopeo sync`: …". */
  readonly what: string;
  /** Fails where the registry, or the machine, does not have what it should have now. */
  readonly expect: (run: OtherRun) => Promise<void>;
}

/** What is known of a tool beside the commands of its example. */
export interface Tool {
  /** As its folder in examples/ is called. */
  readonly name: string;
  /** Whether the system's program is meant where there is one of ours, too. */
  readonly ofTheSystem?: boolean;
  readonly version: (place: Place) => Promise<string>;
  /** Whether it pushes what it is given as it is; otherwise it makes something of it, and says its digest. */
  readonly keepsDigests?: boolean;
  /** Fails where the tool does not have that image now, byte for byte. Undefined where it pulls none. */
  readonly expectPulled?: (pull: Pull) => Promise<void>;
  /** What is refused without a login, where that is not a pull. */
  readonly refusedBy?: OtherOperation;
  /** The tag of what it pushes, 1 unless said otherwise. */
  readonly tag?: string;
  /** The repository whose layers a mount is expected for, copy unless said otherwise. */
  readonly mountsInto?: string;
  /** Whether it has layers of 200 MiB. */
  readonly hasLargeLayers?: boolean;
  /** Whether it asks the registry itself, without a login, for what it has not got from the proxy. */
  readonly asksTheRegistryItself?: boolean;
  /** Whether it looks for a name without a registry in those of the machine's settings. */
  readonly searchesRegistries?: boolean;
  /** What it does beside what all of them do. */
  readonly others?: readonly Other[];
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
const dropInNote =
  "A link in `registries.conf.d` leaves the machine's own settings as they are, while `CONTAINERS_REGISTRIES_CONF` takes its search registries away. Remove the link with the volume: one that leads to nothing is an error.";

/** What the registry has under a tag is what was there before, under other names. */
async function expectSame(
  { registry, repository }: OtherRun,
  name: string,
  to: Content,
  tag = "1",
) {
  const { digest } = await registry.read(repository(name), tag);
  expect(digest).to.equal(to.manifest.digest);
}

export const tools: readonly Tool[] = [
  {
    name: "skopeo",
    version: fromDebian("skopeo"),
    keepsDigests: true,
    expectPulled: expectLayout,
    hasLargeLayers: true,
    others: [
      {
        operation: "sync",
        what: "`skopeo sync` of a repository into a folder, and from there into another repository",
        expect: (run) => expectSame(run, "synced/base", run.fixtures.base),
      },
    ],
    notes: [
      certDirNote,
      dropInNote,
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
      dropInNote,
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
    others: [
      {
        operation: "login",
        what: "`podman login` with the volume's token as the password, in an authfile of its own, and `podman logout`",
        async expect({ stdout, fixtures }) {
          expect(stdout)
            .to.include("Login Succeeded!")
            .and.include(fixtures.base.config.digest.slice(7));
        },
      },
    ],
    notes: [
      certDirNote,
      dropInNote,
      "`podman login` can't write into the volume: it needs an `--authfile` of its own, whose token nobody renews.",
    ],
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
    others: [
      {
        operation: "copies",
        what: "`crane copy` of all tags and all platforms, `crane tag`, `crane ls`",
        async expect(run) {
          await expectSame(run, "copies", run.fixtures.base);
          await expectSame(run, "copies", run.fixtures.base, "stable");
          await expectSame(run, "copies", run.fixtures.platforms, "platforms");
          const listed = run.stdout.trim().split("\n");
          expect(listed).to.have.members(["1", "platforms", "stable"]);
        },
      },
    ],
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
    others: [
      {
        operation: "backup",
        what: "`oras backup` of an image with what is attached to it, and `oras restore` into another repository",
        async expect(run) {
          await expectSame(run, "restored", run.fixtures.base);
          const { digest } = run.fixtures.base.manifest;
          const attached = await run.registry.referrers(run.repository("restored"), digest);
          expect(attached).to.have.length(1);
        },
      },
    ],
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
  {
    name: "cosign",
    version: fromGo("cosign"),
    refusedBy: "sign-by-tag",
    others: [
      {
        operation: "sign-by-referrer",
        registries: ["docker-registry", "distribution", "oci-1-1"],
        what: "`cosign sign`, `verify`, `attest` and `verify-attestation`, by referrers",
        async expect({ registry, repository, fixtures }) {
          const { digest } = fixtures.base.manifest;
          const attached = await registry.referrers(repository("base"), digest);
          const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
          expect(attached).to.have.length(2);
          for (const one of attached) expect(one).to.include({ artifactType: bundle });
        },
      },
      {
        operation: "sign-by-tag",
        what: "the same by tags, with the registry's own name in the signature",
        async expect({ registry, repository, fixtures, stdout, place }) {
          const tag = fixtures.base.manifest.digest.replace(":", "-");
          for (const end of ["sig", "att"]) {
            expect(
              (await registry.read(repository("base"), `${tag}.${end}`)).layers,
            ).to.have.length(1);
          }
          const name = place.image("base", "own");
          expect(stdout).to.include(`"docker-reference":"${name}"`);
        },
      },
    ],
    notes: [
      "It signs the name by which it is called, and that is the proxy's: sign by the forward proxy, or give the registry's own name with `--sign-container-identity` (signatures by tag alone). The same is true of `podman push --sign-by`, `skopeo copy --sign-by` (gpg) and of buildkit's provenance.",
    ],
  },
  {
    name: "buildx",
    version: fromGo("buildx"),
    refusedBy: "imagetools",
    others: [
      {
        operation: "imagetools",
        what: "`docker buildx imagetools inspect` and `create`",
        async expect(run) {
          const { base, platforms } = run.fixtures;
          const { registry, repository, stdout } = run;
          const created = await registry.read(repository("created"), "1");
          expect(created.platforms).to.deep.equal(["linux/amd64", "linux/arm64"]);
          expect(stdout)
            .to.include(platforms.manifest.digest)
            .and.include(base.manifest.digest.slice(7));
          await expectSame(run, "created", base, "2");
        },
      },
    ],
    notes: [
      "It takes a loopback address for plain HTTP: use the proxy's plain HTTP port, or the forward proxy.",
    ],
  },
];
