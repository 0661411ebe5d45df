/** Keeps our provider in a kubelet's configuration of credential providers. */
import { dirname, extname, join } from "node:path";
import { isMap, isSeq, parseDocument } from "yaml";
import { listOf, property } from "../connector/document.ts";
import { syncFolder } from "../durable-file.ts";
import { unless } from "../error-code.ts";
import { type CredentialProvider, providerName } from "./credential-provider.ts";
import { isOwn, ownMark } from "./hosts-toml.ts";
import {
  type NodeFiles,
  readNodeFile,
  removeNodeFile,
  removeUnfinished,
  writeNodeFile,
} from "./node-file.ts";

/** Where a kubelet's configuration of credential providers is. */
export interface ProviderConfigPlace {
  readonly folder: string;
  /** The file that the kubelet's flag names; undefined where it names the folder, as it can since 1.35. */
  readonly file: string | undefined;
}

/** What a kubelet's configuration is to become. */
export type ProviderConfigPlan =
  | {
      readonly ok: true;
      readonly path: string;
      readonly content: string;
      readonly mode: number;
      /** Whether it is somebody else's, without our provider in it. */
      readonly isForeign: boolean;
    }
  /** It stays as it is. */
  | { readonly ok: false; readonly reason: string };

/** The file of our own in a folder. */
const ownFileName = "oci-connector.yaml";

const pathOf = ({ folder, file }: ProviderConfigPlace): string => join(folder, file ?? ownFileName);

/** The file as it was before, of a name that no kubelet reads. It is the same file: its owner, mode and time are kept, too. */
const backupOf = (path: string): string => `${path}.before-oci-connector`;

/**
 * Plans how the provider gets into the configuration: as a file of its own, or into the one that there is. Nothing is
 * written.
 */
export async function planProviderConfig(
  files: NodeFiles,
  place: ProviderConfigPlace,
  provider: CredentialProvider,
): Promise<ProviderConfigPlan> {
  const path = pathOf(place);
  const status = await files.lstat(path).catch(unless(undefined, "ENOENT"));
  if (status !== undefined && !status.isFile()) {
    return refused(`${path} is a link or no file: name the file that it leads to`);
  }
  const other = await otherFileWithProvider(files, place);
  if (other !== undefined) {
    return refused(
      `${other} has a provider ${providerName}, and a kubelet takes none twice: remove it there`,
    );
  }
  const present = await readNodeFile(files, path);
  if (present === undefined || isOwn(present)) {
    const content = `${ownMark}\n${JSON.stringify(configOf(provider), null, 2)}\n`;
    return { ok: true, path, content, mode: 0o644, isForeign: false };
  }
  if (place.file === undefined) {
    return refused(`${path} was not written by oci-connector: remove it`);
  }
  const merged = mergeProvider(present, provider);
  if (!merged.ok) return refused(`${path} ${merged.reason}`);
  const mode = (status?.mode ?? 0o644) & 0o777;
  return { ok: true, path, content: merged.text, mode, isForeign: !hasProvider(present) };
}

/** Writes a configuration as it was planned. Of one that is somebody else's a backup is kept beside it. */
export async function writeProviderConfig(
  files: NodeFiles,
  { path, content, mode, isForeign }: ProviderConfigPlan & { readonly ok: true },
): Promise<void> {
  if (isForeign) await keepBackup(files, path);
  await writeNodeFile(files, path, content, mode);
}

/**
 * Takes the provider out of the configuration. The file that was there before comes back, byte for byte, unless somebody
 * has changed it since: then just the provider is taken out.
 * @param mayBeMissing whether the kubelet's flags are known not to name what would be missing without the file: it would not
 *   start
 * @returns whether nothing of ours is left in it
 */
export async function removeProviderConfig(
  files: NodeFiles,
  place: ProviderConfigPlace,
  mayBeMissing: boolean,
): Promise<boolean> {
  if (!(await takeOutOfOthers(files, place, mayBeMissing))) return false;
  const path = pathOf(place);
  const content = await readNodeFile(files, path);
  if (content !== undefined && isOwn(content)) {
    const canGo = mayBeMissing || (await hasOtherConfig(files, place));
    if (canGo) await removeNodeFile(files, path);
    return canGo;
  }
  return takeOutOf(files, path, mayBeMissing);
}

/**
 * Takes the provider out of configurations that the settings do not name any more.
 * @returns false where it stays in one
 */
async function takeOutOfOthers(
  files: NodeFiles,
  place: ProviderConfigPlace,
  mayBeMissing: boolean,
): Promise<boolean> {
  for (const path of await configsIn(files, place)) {
    // A backup says that it was this program that has put the provider in.
    if (path === pathOf(place) || (await readNodeFile(files, backupOf(path))) === undefined)
      continue;
    if (!(await takeOutOf(files, path, mayBeMissing))) return false;
  }
  return true;
}

/**
 * Takes the provider out of a configuration that is not ours, with all that was kept beside it.
 * @returns false where it stays
 */
async function takeOutOf(files: NodeFiles, path: string, mayBeMissing: boolean): Promise<boolean> {
  const content = await readNodeFile(files, path);
  if (content !== undefined && hasProvider(content)) {
    const isOut = await takeProviderOut(files, path, content, mayBeMissing);
    if (!isOut) return false;
  }
  await removeNodeFile(files, backupOf(path));
  await removeUnfinished(files, path);
  return true;
}

/** @returns false where nothing would be left in the list of providers: a kubelet starts with no empty one */
async function takeProviderOut(
  files: NodeFiles,
  path: string,
  content: string,
  mayBeMissing: boolean,
): Promise<boolean> {
  const before = await readNodeFile(files, backupOf(path));
  const left = withoutProvider(content);
  if (before !== undefined && left === withoutProvider(before)) {
    await files.rename(backupOf(path), path);
    await syncFolder(files, dirname(path));
    return true;
  }
  if (providersIn(left).length === 0 && !mayBeMissing) return false;
  const { mode } = await files.lstat(path);
  await writeNodeFile(files, path, left, mode & 0o777);
  return true;
}

const refused = (reason: string): ProviderConfigPlan => ({ ok: false, reason });

const configOf = (provider: CredentialProvider): object => ({
  apiVersion,
  kind: "CredentialProviderConfig",
  providers: [provider],
});

const apiVersion = "kubelet.config.k8s.io/v1";

/** A link, so that there is no moment at which the file is missing or half. An older backup is of an older file. */
async function keepBackup(files: NodeFiles, path: string): Promise<void> {
  await files.unlink(backupOf(path)).catch(unless(undefined, "ENOENT"));
  await files.link(path, backupOf(path));
  await syncFolder(files, dirname(path));
}

/** A kubelet reads these of a folder, in the order of their names. */
const isConfigName = (name: string): boolean => [".json", ".yaml", ".yml"].includes(extname(name));

/** The paths of all configurations in the folder, whichever of them the kubelet's flag names. */
async function configsIn(
  files: NodeFiles,
  { folder }: Pick<ProviderConfigPlace, "folder">,
): Promise<readonly string[]> {
  const names = await files.readdir(folder).catch(unless([], "ENOENT"));
  return names.filter(isConfigName).map((name) => join(folder, name));
}

/** Those that a kubelet reads besides ours. */
const otherConfigs = async (
  files: NodeFiles,
  place: ProviderConfigPlace,
): Promise<readonly string[]> =>
  place.file === undefined
    ? (await configsIn(files, place)).filter((path) => path !== pathOf(place))
    : [];

const hasOtherConfig = async (files: NodeFiles, place: ProviderConfigPlace): Promise<boolean> =>
  (await otherConfigs(files, place)).length > 0;

const otherFileWithProvider = async (
  files: NodeFiles,
  place: ProviderConfigPlace,
): Promise<string | undefined> => firstWithProvider(files, await otherConfigs(files, place));

/** A configuration in the folder that names the provider: a kubelet that reads it does not start without the plug-in. */
export const configWithProvider = async (
  files: NodeFiles,
  place: Pick<ProviderConfigPlace, "folder">,
): Promise<string | undefined> => firstWithProvider(files, await configsIn(files, place));

async function firstWithProvider(
  files: NodeFiles,
  paths: readonly string[],
): Promise<string | undefined> {
  for (const path of paths) {
    if (hasProvider((await readNodeFile(files, path)) ?? "")) return path;
  }
  return undefined;
}

type Merged =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly reason: string };

/**
 * Merges the provider into a configuration, in YAML or in JSON as it is. Nothing else of it changes its meaning; in YAML
 * comments stay.
 */
function mergeProvider(content: string, provider: CredentialProvider): Merged {
  const document = parseDocument(content);
  if (document.errors.length > 0) return { ok: false, reason: "is neither YAML nor JSON" };
  const value: unknown = document.toJS();
  if (property(value, "apiVersion") !== apiVersion) {
    const found = String(property(value, "apiVersion"));
    return {
      ok: false,
      reason: `has the apiVersion ${found}, but tokens of ServiceAccounts need ${apiVersion}: change it`,
    };
  }
  const others = providersIn(content).filter(({ name }) => name !== providerName);
  if (isJson(content)) {
    const merged = { ...(value as object), providers: [...others, provider] };
    return { ok: true, text: `${JSON.stringify(merged, null, 2)}\n` };
  }
  removeFromYaml(document);
  if (!isSeq(document.get("providers"))) document.set("providers", document.createNode([]));
  document.addIn(["providers"], document.createNode(provider));
  return { ok: true, text: document.toString({ lineWidth: 0 }) };
}

/** What is left of a configuration without our provider. */
function withoutProvider(content: string): string {
  const document = parseDocument(content);
  if (isJson(content)) {
    const value = document.toJS() as object;
    const others = providersIn(content).filter(({ name }) => name !== providerName);
    return `${JSON.stringify({ ...value, providers: others }, null, 2)}\n`;
  }
  removeFromYaml(document);
  return document.toString({ lineWidth: 0 });
}

function removeFromYaml(document: ReturnType<typeof parseDocument>): void {
  const providers = document.get("providers");
  if (!isSeq(providers)) return;
  providers.items = providers.items.filter(
    (entry) => !(isMap(entry) && entry.get("name") === providerName),
  );
}

const isJson = (content: string): boolean => content.trimStart().startsWith("{");

/** The providers of a configuration; none where it can't be read. */
function providersIn(content: string): readonly { readonly name?: unknown }[] {
  const document = parseDocument(content);
  if (document.errors.length > 0) return [];
  const entries = listOf(property(document.toJS(), "providers"));
  return entries.filter((entry) => typeof entry === "object" && entry !== null);
}

const hasProvider = (content: string): boolean =>
  providersIn(content).some(({ name }) => name === providerName);
