import { join } from "node:path";
import { eventually } from "../../support/eventually.ts";
import type { FakeRegistryOptions } from "../../support/fake-registry.ts";
import type { Cluster } from "../cluster.ts";

export interface NodeRegistryOptions
  extends Pick<FakeRegistryOptions, "auth" | "users" | "tls" | "hostname"> {
  /** Sets the image `app/base:1` apart from those of others. */
  readonly image?: { readonly seed?: string; readonly layerSizes?: readonly number[] };
  /** An image that can be run, as skopeo's `dir:` has it, which becomes `app/web:1`. */
  readonly folder?: string;
}

/** A registry that listens on the first node, and holds the image `app/base:1`. */
export interface NodeRegistry {
  /** `10.250.0.1:34567` */
  readonly host: string;
  readonly url: string;
  /** PEM of the authority that has signed its certificate, with TLS. */
  readonly ca: string | undefined;
  /** What it has been asked so far: `PUT /v2/app/manifests/1 201`. */
  requests(): Promise<readonly string[]>;
  /** Every Authorization header that it has got: `Basic …`. */
  authorizations(): Promise<readonly string[]>;
}

/** Starts a registry that ends with the cluster. */
export async function startNodeRegistry(
  cluster: Cluster,
  name: string,
  options: NodeRegistryOptions,
): Promise<NodeRegistry> {
  const program = join(import.meta.dirname, "registry-process.ts");
  const command = [process.execPath, program, JSON.stringify(options)];
  const output = await cluster.start(`registry-${name}`, command);
  const firstLine = async (): Promise<string | undefined> => /^\{.*\}$/m.exec(await output())?.[0];
  const requests = async (): Promise<readonly string[]> =>
    (await output()).match(/^[A-Z]+ \/.*$/gm) ?? [];
  const authorizations = async (): Promise<readonly string[]> =>
    [...(await output()).matchAll(/^authorization: (.*)$/gm)].map(([, value = ""]) => value);
  const line = await eventually(firstLine, () => `the registry ${name} does not start`, 30_000);
  return { ...JSON.parse(line), requests, authorizations };
}
