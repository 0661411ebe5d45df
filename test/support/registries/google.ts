import { sendHugeHeaders } from "../hostile-answers.ts";
import { namedHosts, type RegistryScenario, useTokenEndpoint } from "./scenario.ts";

const hostname = "europe-west1-docker.pkg.dev";

export const google: RegistryScenario = {
  name: "Google (Artifact Registry)",
  peculiarities: [
    "the password is a JSON document, with quotes, colons and line ends",
    "tokens from `/v2/token`",
    "upload URLs lack the repository (`/artifacts-uploads/…`)",
    "blobs by a relative redirect to the same host (`/artifacts-downloads/…`)",
    "heads of 21 KB",
  ],
  async start() {
    const hosts = namedHosts();
    const key = { type: "service_account", private_key: "-----BEGIN-----\nabc\n-----END-----\n" };
    const credential = { username: "_json_key", password: JSON.stringify(key, undefined, 2) };
    const users = { [credential.username]: credential.password };
    const registry = await hosts.start(hostname, { auth: "bearer", users });
    useTokenEndpoint(registry, { path: "/v2/token", service: hostname });
    registry.auth.lifetime = 3600;
    registry.uploadLocation = "gar";
    const downloads = "/artifacts-downloads/namespaces/project/repositories/store/downloads";
    registry.on("GET blob", ({ target: { repository, reference }, send }) => {
      const state = Buffer.from(`${repository} ${reference}`).toString("base64url");
      send(302, { Location: `${downloads}/${state}` });
    });
    registry.on(
      `GET ${downloads}/*`,
      ({ path, request, fail, send }) => {
        const state = Buffer.from(path.split("/").at(-1) ?? "", "base64url").toString();
        const [repository = "", digest = ""] = state.split(" ");
        const blob = registry.repository(repository).blobs.get(digest);
        if (blob === undefined) return fail(404, "BLOB_UNKNOWN");
        const [, start] = /^bytes=(\d+)-$/.exec(request.headers.range ?? "") ?? [];
        if (start === undefined) return send(200, {}, blob);
        const range = `bytes ${start}-${blob.length - 1}/${blob.length}`;
        return send(206, { "Content-Range": range }, blob.subarray(Number(start)));
      },
      "before auth",
    );
    sendHugeHeaders(registry);
    return {
      address: registry.url,
      credential,
      params: [],
      caCertificates: hosts.caCertificates(),
      lookup: hosts.lookup,
      registry,
      repository: "project/store/app",
      other: "project/store/base",
      answers: { mount: 201, deletes: 202, catalog: 200 },
      stop: hosts.stop,
    };
  },
};
