import { namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

export const harbor: RegistryScenario = {
  name: "Harbor",
  peculiarities: [
    "tokens from `/service/token`",
    "robot accounts with a `$` and a `+` in their names",
    "projects exist beforehand, and an account has rights in some alone",
    "a mount from a project that may not be read is refused with 401",
    "errors `NOT_FOUND` with texts of its own, and cookies",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "robot$team+builder", password: "robot-secret: ü" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start("harbor.example.com", { auth: "bearer", users });
    useTokenEndpoint(registry, { path: "/service/token", service: "harbor-registry" });
    const isOwn = (name: string): boolean => name.startsWith("team/");
    registry.auth.rights = (user, { type, name, actions }) =>
      user !== undefined && (type === "registry" || isOwn(name)) ? actions : [];
    registry.auth.lifetime = 1800;
    registry.uploadLocation = "state";
    registry.on("GET manifest", ({ target: { repository, reference }, fail, next }) => {
      const { tags, manifests } = registry.repository(repository);
      if (tags.has(reference) || manifests.has(reference)) return next();
      return fail(404, "NOT_FOUND", `artifact ${repository}:${reference} not found`);
    });
    registry.on("POST uploads", ({ target: { repository }, fail, next }) =>
      isOwn(repository)
        ? next()
        : fail(404, "NOT_FOUND", `project ${repository.split("/")[0]} not found`),
    );
    registry.on("* *", ({ response, next }) => {
      response.setHeader("Set-Cookie", "sid=0123456789abcdef; Path=/; HttpOnly");
      response.setHeader("X-Request-Id", "f1e2d3c4");
      return next();
    });
    return {
      address: registry.url,
      credential,
      params: [],
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      repository: "team/app",
      other: "library/base",
      answers: { mount: 202, deletes: 202, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
