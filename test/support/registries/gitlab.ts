import type { Handler } from "../fake-registry.ts";
import { namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

export const gitlab: RegistryScenario = {
  name: "GitLab",
  peculiarities: [
    "tokens come from the web's host (`/jwt/auth`)",
    "tokens of five minutes",
    "of several scopes the first one alone is looked at, so mounts are refused",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "gitlab+deploy-token-1", password: "gldt-0123456789abcdef" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start("registry.example.com", { auth: "bearer", users });
    const tokenServer = await hosts.start("gitlab.example.com");
    useTokenEndpoint(registry, {
      path: "/jwt/auth",
      service: "container_registry",
      host: tokenServer,
    });
    const lookAtFirst: Handler = ({ query, next }) => {
      const [first = ""] = query.getAll("scope");
      query.set("scope", first); // in place of all of them
      return next();
    };
    tokenServer.on("GET /jwt/auth", lookAtFirst, "before auth");
    registry.auth.lifetime = 300;
    registry.uploadLocation = "state";
    registry.on("* *", ({ response, next }) => {
      response.setHeader("Gitlab-Container-Registry-Version", "4.15.0");
      return next();
    });
    return {
      address: registry.url,
      credential,
      params: [],
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      tokenServer,
      repository: "group/project/app",
      other: "group/project/base",
      answers: { mount: 202, deletes: 202, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
