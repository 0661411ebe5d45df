import { storeBlobsIn } from "../hostile-downloads.ts";
import { allowStorage, namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

export const dockerHub: RegistryScenario = {
  name: "Docker Hub",
  peculiarities: [
    "known by other names (`docker.io`) than that of its API (`registry-1.docker.io`)",
    "official images are under `library/`",
    "tokens come from `auth.docker.io`",
    "rate limits in headers, 429 with `Retry-After`",
    "blobs from a CDN in another domain",
    "no list of repositories, no deletes",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "alice", password: "dckr_pat_of-alice" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start("registry-1.docker.io", { auth: "bearer", users });
    const tokenServer = await hosts.start("auth.docker.io");
    const storage = await hosts.start("production.cloudflare.docker.com");
    useTokenEndpoint(registry, {
      path: "/token",
      service: "registry.docker.io",
      host: tokenServer,
    });
    registry.auth.rights = (user, { type, actions }) =>
      user === undefined || type !== "repository" ? [] : actions;
    registry.features.deletes = false;
    registry.uploadLocation = "state";
    storeBlobsIn(storage, registry);
    registry.on("* *", ({ target: { repository }, fail, next }) =>
      repository === "" || repository.includes("/") ? next() : fail(404, "NAME_UNKNOWN"),
    );
    const budget = { left: 100 };
    for (const method of ["GET", "HEAD"] as const) {
      registry.on(`${method} manifest`, ({ response, fail, next }) => {
        if (method === "GET") budget.left -= 1;
        const left = Math.max(0, budget.left);
        response.setHeader("RateLimit-Limit", "100;w=21600");
        response.setHeader("RateLimit-Remaining", `${left};w=21600`);
        response.setHeader("Docker-RateLimit-Source", "198.51.100.7");
        if (budget.left >= 0 || method === "HEAD") return next();
        response.setHeader("Retry-After", "3600");
        return fail(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.");
      });
    }
    return {
      ...{ address: "https://docker.io", port: registry.port, credential },
      ...{ params: allowStorage(storage), caCertificates: hosts.caCertificates() },
      ...{ lookup: hosts.lookup, registry, tokenServer, storage, budget },
      ...{ repository: "alice/app", other: "alpine" },
      answers: { mount: 201, deletes: 405, catalog: 403 },
      stop: hosts.stop,
    };
  },
};
