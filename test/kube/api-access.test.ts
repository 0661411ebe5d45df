import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import type { RequestListener } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { inspect } from "node:util";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../src/certificate-authority.ts";
import { Unavailable } from "../../src/connector/platform.ts";
import { createInClusterAccess, loadKubeconfigAccess } from "../../src/kube/api-access.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

describe("access to the API server", () => {
  const resources = cleanup();
  let folder: string;
  let server: Server;
  let port: number;

  /** Gives the server a certificate of a new authority. @returns that one's, PEM */
  const renewCertificate = async (): Promise<string> => {
    const authority = await createAuthority("kubernetes", new Date());
    const leaf = await (await createLeafIssuer(authority))("127.0.0.1", new Date());
    server.setSecureContext({ cert: leaf.certificate, key: leaf.privateKey });
    return authority.certificate;
  };

  before(async () => {
    folder = resources.add(makeTempFolder("access")).path;
    server = createServer((request, response) => {
      response.end(JSON.stringify({ authorization: request.headers.authorization }));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    resources.defer(() => {
      server.close();
      server.closeAllConnections();
    });
    port = (server.address() as AddressInfo).port;
    await writeFile(join(folder, "ca.crt"), await renewCertificate());
    await writeFile(join(folder, "token"), "first\n");
  });
  after(resources.stop);

  const authorizationOf = (answer: unknown): unknown =>
    (answer as { authorization: unknown }).authorization;

  it("in the cluster goes by files that are replaced while we run", async () => {
    const access = createInClusterAccess({ host: "127.0.0.1", port: `${port}`, folder });
    const client = createApiClient({ access });
    expect(authorizationOf(await client.request({ path: "/" }))).to.equal("Bearer first");
    await writeFile(join(folder, "token"), "second");
    expect(authorizationOf(await client.request({ path: "/" }))).to.equal("Bearer second");

    const ca = await renewCertificate();
    server.closeAllConnections();
    const error = await client.request({ path: "/" }).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(Unavailable);
    await writeFile(join(folder, "ca.crt"), ca);
    expect(authorizationOf(await client.request({ path: "/" }))).to.equal("Bearer second");
  });

  it("in the cluster takes a few connections for any number of requests, and others for watches", async () => {
    const access = createInClusterAccess({ host: "127.0.0.1", port: `${port}`, folder });
    const client = createApiClient({ access });
    let connections = 0;
    const count = (): void => {
      connections += 1;
    };
    server.on("secureConnection", count);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const answer = server.listeners("request")[0] as RequestListener;
    server.removeAllListeners("request");
    server.on("request", (request, response) => {
      if (request.url?.includes("watch=true")) answer(request, response);
      else void released.then(() => answer(request, response));
    });
    const requests = Array.from({ length: 500 }, () => client.request({ path: "/" }));
    const signal = new AbortController().signal;
    const watch = { path: "/", query: {}, signal, idleTimeoutMs: 5_000 };
    for await (const event of await client.watch(watch)) expect(event).to.be.an("object");
    release();
    await Promise.all(requests);
    server.off("secureConnection", count);
    expect(connections).to.be.within(2, 25);
  });

  it("in the cluster says what is missing, and recovers", async () => {
    const access = createInClusterAccess({
      host: "127.0.0.1",
      port: `${port}`,
      folder: join(folder, "none"),
    });
    const error = await createApiClient({ access })
      .request({ path: "/" })
      .catch((e: unknown) => e);
    expect(error).to.be.instanceOf(Unavailable);
    expect(String(error)).to.contain(join(folder, "none"));
  });

  it("in the cluster may have an IPv6 address", () => {
    const { server: url } = createInClusterAccess({ host: "fd00::1", port: "443", folder });
    expect(url.href).to.equal("https://[fd00::1]/");
  });

  it("from outside goes by a kubeconfig", async () => {
    const file = join(folder, "kubeconfig");
    const cluster = { server: `https://127.0.0.1:${port}`, "certificate-authority": "ca.crt" };
    const config = {
      clusters: [{ name: "c", cluster }],
      users: [{ name: "u", user: { token: "third" } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    };
    await writeFile(file, JSON.stringify(config));
    const access = await loadKubeconfigAccess({ file, context: "x" });
    const answer = await createApiClient({ access }).request({ path: "/" });
    expect(authorizationOf(answer)).to.equal("Bearer third");

    const error = await loadKubeconfigAccess({ file, context: "y" }).catch((e: unknown) => e);
    expect(String(error)).to.contain('no cluster for its context "y"');
  });

  it("from outside says what is wrong with a kubeconfig, and not what is in it", async () => {
    const file = join(folder, "broken");
    await writeFile(file, "users: [{name: u, user: {token: token-in-it}}\n\t{{");
    for (const [path, why] of [
      [file, "its content is not a kubeconfig"],
      [join(folder, "nowhere"), "ENOENT"],
    ] as const) {
      const error = await loadKubeconfigAccess({ file: path }).catch((e: unknown) => e);
      expect(inspect(error)).to.contain(`the kubeconfig can't be read (${why})`);
      expect(inspect(error)).not.to.contain("token-in-it");
    }
  });
});
