/**
 * Builds the programs of a Kubernetes cluster from their Go modules, since no image and no release
 * archive is to be had on a machine that only reaches package registries:
 *
 *   node test/cluster/kubernetes-programs.ts [VERSION]
 *
 * Cold this takes some thirteen minutes on two cores, with Go's own caches filled one and a half, and
 * nothing at all where the programs are there.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { missingPrograms } from "../../tools/require-programs.ts";
import { buildGoProgram, cacheFolder, go as goWith } from "../support/go-programs.ts";

/** The newest version that still has kubernetes/kubernetes#121271, which the driver has to live with. */
const defaultVersion = "1.35.4";
const corednsVersion = "1.15.0";
const kubernetesPrograms = [
  "kube-apiserver",
  "kubelet",
  "kube-controller-manager",
  "kube-scheduler",
  "kube-proxy",
];

/**
 * The folder that holds kube-apiserver, kubelet and so on, coredns, and kubectl where the machine
 * has none. OCI_CONNECTOR_CACHE names the folder in which they are kept, KUBERNETES_VERSION the
 * version (1.36.3).
 */
export async function buildKubernetes(
  version: string = process.env.KUBERNETES_VERSION ?? defaultVersion,
): Promise<string> {
  const folder = join(cacheFolder(), `kubernetes-${version}`);
  const bin = join(folder, "bin");
  await mkdir(bin, { recursive: true });
  const wanted = [...kubernetesPrograms, ...missingPrograms(["kubectl"])];
  const missing = wanted.filter((program) => !existsSync(join(bin, program)));
  if (missing.length > 0) await writeModule(folder, version);
  for (const program of missing) {
    const source = `k8s.io/kubernetes/cmd/${program}`;
    const target = join(bin, program);
    const linkerFlags = stamps(version);
    await buildGoProgram({ module: folder, source, target, linkerFlags, flags });
  }
  if (!existsSync(join(bin, "coredns"))) await buildCoredns(folder, join(bin, "coredns"), version);
  return bin;
}

/** The modules here are written by hand, and completed by go itself. */
const flags = "-mod=mod";
const go = (folder: string, args: readonly string[]): Promise<string> =>
  goWith(folder, args, flags);

/** k8s.io/kubernetes can be required by no other module as it is: its staging modules stand in its go.mod as v0.0.0. */
async function writeModule(folder: string, version: string): Promise<void> {
  if (existsSync(join(folder, "go.sum"))) return;
  process.stderr.write(`building Kubernetes ${version} in ${folder}\n`);
  const answer = await go(folder, ["mod", "download", "-json", `k8s.io/kubernetes@v${version}`]);
  const { GoMod } = JSON.parse(answer) as { GoMod: string };
  const text = await readFile(GoMod, "utf8");
  const staged = new Set(
    [...text.matchAll(/^\s*(k8s\.io\/[a-z0-9-]+) => \.\/staging/gm)].map(([, name]) => name),
  );
  const lines = [
    "module cluster-programs",
    /^go .*$/m.exec(text)?.[0] ?? "go 1.25.0",
    `require k8s.io/kubernetes v${version}`,
    ...[...staged].map((name) => `replace ${name} => ${name} ${stagedVersion(version)}`),
  ];
  await writeFile(join(folder, "go.mod"), `${lines.join("\n")}\n`);
  const imports = [...kubernetesPrograms, "kubectl"].map(
    (program) => `import _ "k8s.io/kubernetes/cmd/${program}"`,
  );
  const source = ["//go:build tools", "package tools", ...imports];
  await writeFile(join(folder, "tools.go"), `${source.join("\n")}\n`);
  await go(folder, ["mod", "tidy"]);
}

function stamps(version: string): string {
  const [major, minor] = version.split(".");
  const values = { gitVersion: `v${version}`, gitMajor: major, gitMinor: minor };
  return Object.entries(values)
    .map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`)
    .join(" ");
}

const stagedVersion = (version: string): string => `v0.${version.replace(/^1\./, "")}`;

/**
 * Only with the plugins that a cluster's DNS here uses: the whole of it drags in the SDKs of three
 * clouds, and so does `go mod tidy`, which looks at the tests of all. Its client is that of Kubernetes
 * itself, which has been compiled already.
 */
async function buildCoredns(folder: string, target: string, version: string): Promise<void> {
  const source = join(folder, "coredns");
  await mkdir(source, { recursive: true });
  const plugins = ["bind", "cache", "errors", "file", "hosts", "kubernetes", "ready"];
  const imports = [
    'import "github.com/coredns/coredns/coremain"',
    ...plugins.map((name) => `import _ "github.com/coredns/coredns/plugin/${name}"`),
  ];
  const main = ["package main", ...imports, "func main() { coremain.Run() }"];
  await writeFile(join(source, "main.go"), `${main.join("\n")}\n`);
  const shared = ["k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go"];
  const module = [
    "module cluster-dns",
    `require github.com/coredns/coredns v${corednsVersion}`,
    ...shared.map((name) => `replace ${name} => ${name} ${stagedVersion(version)}`),
  ];
  await writeFile(join(source, "go.mod"), `${module.join("\n")}\n`);
  await buildGoProgram({ module: source, source: ".", target, flags });
}

if (process.argv[1] === import.meta.filename) {
  process.stdout.write(`${await buildKubernetes(process.argv[2])}\n`);
}
