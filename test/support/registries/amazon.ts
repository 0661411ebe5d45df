import { storeBlobsIn } from "../hostile-downloads.ts";
import {
  allowStorage,
  namedHosts,
  type RegistryScenario,
  wantExistingRepositories,
} from "./scenario.ts";

const account = "123456789012";
const hostname = `${account}.dkr.ecr.eu-central-1.amazonaws.com`;

export const amazon: RegistryScenario = {
  name: "Amazon (ECR)",
  peculiarities: [
    "Basic, with a password of some 2,000 characters",
    "a chunk is answered with 201",
    "repositories exist beforehand",
    "blobs from S3, which refuses a second credential beside its signature",
    "no mounts, no deletes; pages of 1,000 tags at most",
  ],
  async start() {
    const hosts = namedHosts();
    const credential = { username: "AWS", password: "ecr-token".padEnd(2000, "0123456789abcdef") };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start(hostname, { auth: "basic", users });
    const storage = await hosts.start(
      "prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com",
    );
    registry.auth.challenge = () =>
      `Basic realm="https://${hostname}/",service="ecr.amazonaws.com"`;
    registry.features.deletes = false;
    registry.uploadLocation = "absolute";
    storeBlobsIn(storage, registry);
    wantExistingRepositories(
      registry,
      (name) =>
        `The repository with name '${name}' does not exist in the registry with id '${account}'`,
    );
    registry.on("POST uploads", ({ query, next }) => {
      for (const name of ["mount", "from"]) query.delete(name);
      return next();
    });
    registry.on("PATCH upload", async ({ response, next }) => {
      const { writeHead } = response;
      response.writeHead = (status: number, ...rest: never[]) =>
        writeHead.call(response, status === 202 ? 201 : status, ...rest);
      await next();
    });
    registry.on("GET tags", ({ query, fail, next }) =>
      Number(query.get("n") ?? 1) > 1000 ? fail(400, "UNSUPPORTED", "n is too large") : next(),
    );
    for (const name of ["app", "base"]) registry.repository(name);
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
      answers: { mount: 202, deletes: 405, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
