import type { VolumeContents } from "./volume-contents.ts";

/** The user name that tools send. Any name will do but an empty one, which containerd and oras refuse. */
const user = "connectors";

/** The credential that tools send to the proxy, in base64: the `auth` of a docker config and the value after `Basic`. */
export const basicCredential = (token: string): string =>
  Buffer.from(`${user}:${token}`).toString("base64");

/**
 * Renders `config.json` of docker, which many tools read. Keys are hosts without a path, since oras, regctl and buildkit
 * don't read keys with one.
 */
export function* renderDockerConfig({
  connectors,
  token,
}: VolumeContents): Generator<readonly [string, string]> {
  const hosts = connectors.flatMap(({ proxy }) => [proxy.http, proxy.https]);
  const auth = basicCredential(token);
  const auths = Object.fromEntries(
    hosts.flatMap((host) => (host === undefined ? [] : [[host, { auth }]])),
  );
  yield ["config.json", `${JSON.stringify({ auths }, undefined, 2)}\n`];
}
