import type { Handler } from "../fake-registry.ts";
import { storeBlobsIn } from "../hostile-downloads.ts";
import { namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

export const quay: RegistryScenario = {
  name: "Quay",
  peculiarities: [
    "tokens from `/v2/auth`",
    "no token at all, but 400, where `delete` is asked for; who may push may delete",
    "of several repositories a token is for those that may be used",
    "mounts only where it is said from where",
    "blobs from a neighbour in its own domain",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "team+robot", password: "robot-token-of-the-team" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start("quay.io", { auth: "bearer", users });
    const storage = await hosts.start("cdn01.quay.io");
    useTokenEndpoint(registry, { path: "/v2/auth", service: "quay.io" });
    registry.auth.rights = (user, { type, name, actions }) =>
      user !== undefined && (type === "registry" || name.startsWith("team/")) ? actions : [];
    const knowNoDelete: Handler = ({ query, fail, next }) =>
      query.getAll("scope").some((scope) => scope.includes("delete"))
        ? fail(400, "INVALID_REQUEST", "Unable to decode repository and actions")
        : next();
    registry.on("GET /v2/auth", knowNoDelete, "before auth");
    registry.auth.deletesAsPush = true;
    registry.features.anonymousMounts = false;
    registry.uploadLocation = "relative";
    storeBlobsIn(storage, registry);
    return {
      address: registry.url,
      credential,
      params: [],
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      storage,
      repository: "team/app",
      other: "somebody/base",
      answers: { mount: 202, deletes: 202, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
