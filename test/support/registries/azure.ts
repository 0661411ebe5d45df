import { storeBlobsIn } from "../hostile-downloads.ts";
import { allowStorage, namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

const hostname = "team.azurecr.io";

export const azure: RegistryScenario = {
  name: "Azure (ACR)",
  peculiarities: [
    "a token is called `access_token` alone, and says nothing of its life",
    "a refresh token as the password of the user `00000000-0000-0000-0000-000000000000`",
    "blobs from a storage account in another domain",
    "headers for browsers",
  ],
  async start() {
    const hosts = namedHosts();
    const username = "00000000-0000-0000-0000-000000000000";
    const credential = { username, password: "refresh-token.of.the-team" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start(hostname, { auth: "bearer", users });
    const storage = await hosts.start("weumanaged1.blob.core.windows.net");
    useTokenEndpoint(registry, { path: "/oauth2/token", service: hostname });
    registry.auth.answer = ({ token }) => ({ access_token: token });
    registry.uploadLocation = "state";
    storeBlobsIn(storage, registry);
    registry.on("* *", ({ response, next }) => {
      response.setHeader("Strict-Transport-Security", "max-age=31536000; includeSubDomains");
      response.setHeader("X-Ms-Correlation-Request-Id", "1d6f2c1e");
      return next();
    });
    return {
      address: registry.url,
      credential,
      params: allowStorage(storage),
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      storage,
      repository: "app",
      other: "base",
      answers: { mount: 201, deletes: 202, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
