import type { VolumeContents } from "./volume-contents.ts";

/** Any user does, as long as there is one: containerd and oras refuse an empty name. */
const user = "connectors";

/** The credential that tools send to the proxy, as `auth` in a docker config and behind `Basic`. */
export const basicCredential = (token: string): string =>
  Buffer.from(`${user}:${token}`).toString("base64");

/**
 * `config.json` of docker and of all that read it. Keys are hosts alone: oras, regctl and buildkit
 * don't read keys with a path.
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
