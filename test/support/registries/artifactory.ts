import { namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

const basePath = "/artifactory/api/docker/docker-local";
const hostname = "artifactory.example.com";

export const artifactory: RegistryScenario = {
  name: "Artifactory",
  peculiarities: [
    "the API below a base path, and the token server below the same",
    "absolute upload URLs",
    "the next page of a list is named without the base path",
    "headers of its own",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "builder", password: "AKCp8-api-key-of-the-builder" };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start(hostname, { auth: "bearer", users, basePath });
    useTokenEndpoint(registry, { path: `${basePath}/v2/token`, service: hostname });
    registry.uploadLocation = "absolute";
    for (const kind of ["tags", "catalog"] as const) {
      registry.on(`GET ${kind}`, async ({ response, next }) => {
        const { writeHead } = response;
        response.writeHead = (status: number, headers: unknown) => {
          const { Link, ...others } = headers as { Link?: string };
          const link = Link === undefined ? {} : { Link: Link.replace(basePath, "") };
          return writeHead.call(response, status, { ...others, ...link });
        };
        await next();
      });
    }
    registry.on("* *", ({ response, next }) => {
      response.setHeader("X-JFrog-Version", "Artifactory/7.98.9");
      response.setHeader("X-Artifactory-Node-Id", "node-1");
      return next();
    });
    return {
      address: registry.url + basePath,
      credential,
      params: [],
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      repository: "team/app",
      other: "team/base",
      answers: { mount: 201, deletes: 202, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
