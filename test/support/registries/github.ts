import { storeBlobsIn } from "../hostile-downloads.ts";
import { allowStorage, namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

export const github: RegistryScenario = {
  name: "GitHub (ghcr.io)",
  peculiarities: [
    "the challenge of `/v2/` names a repository that nobody has asked for",
    "upload URLs are relative, with `/blobs/upload/` in the singular",
    "blobs from a host in another domain",
    "no deletes",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "alice", password: "ghp_0123456789abcdefghij" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start("ghcr.io", { auth: "bearer", users });
    const storage = await hosts.start("pkg-containers.githubusercontent.com");
    useTokenEndpoint(registry, {
      path: "/token",
      service: "ghcr.io",
      pingScope: "repository:user/image:pull",
    });
    registry.features.deletes = false;
    registry.uploadLocation = "ghcr";
    storeBlobsIn(storage, registry);
    return {
      address: registry.url,
      credential,
      params: allowStorage(storage),
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      storage,
      repository: "alice/app",
      other: "alice/base",
      answers: { mount: 201, deletes: 405, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
