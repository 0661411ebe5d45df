import type { IncomingHttpHeaders } from "node:http";
import { expect } from "chai";
import { clientOf, errorIn, type TestClient } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { revokeTokensAfter } from "../support/hostile-auth.ts";
import { sha256 } from "../support/oci-image.ts";
import { oddRegistry } from "../support/registries/odd-registries.ts";

const alice = { username: "alice", password: "secret-of-alice" };

describe("a registry that wants an action of its own", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url, { credential: alice });
    client = clientOf(proxy, "harbor");
  });
  afterEach(resources.stop);

  const count = (kind: string): number =>
    registry.requests.filter(({ target }) => target.kind === kind).length;
  const list = async (): Promise<number> => (await client("GET", "app/tags/list")).status;

  const neededFor = (method: string | undefined, kind: string): string => {
    if (method === "DELETE") return "*";
    return kind === "tags" ? "metadata_read" : "pull";
  };
  const allows = ({ authorization }: IncomingHttpHeaders, needed: string): boolean =>
    registry.auth.tokens
      .get(authorization?.slice("Bearer ".length) ?? "")
      ?.access.some(({ actions }) => actions.includes(needed)) === true;
  const wants = (error = ""): void => {
    registry.auth.mode = "none";
    registry.on("* *", ({ request, target, fail, response, next }) => {
      const needed = neededFor(request.method, target.kind);
      if (target.kind === "token" || allows(request.headers, needed)) return next();
      const scope = `scope="repository:${target.repository}:${needed}"`;
      const challenge = `Bearer realm="${registry.url}/token",service="x",${scope}${error}`;
      response.setHeader("WWW-Authenticate", challenge);
      return fail(401, "UNAUTHORIZED");
    });
  };
  const scopes = (): (string | null)[] =>
    registry.requests
      .filter(({ target }) => target.kind === "token")
      .map(({ url }) => new URL(url, registry.url).searchParams.get("scope"));

  it(oddRegistry("own-action"), async () => {
    wants();
    expect(await list()).to.equal(200);
    expect((await client("DELETE", "app/manifests/1")).status).to.equal(202);
    expect(scopes()).to.deep.equal([
      "repository:app:pull",
      "repository:app:pull,metadata_read",
      "repository:app:delete",
      "repository:app:*",
    ]);
  });

  it("and keeps the token for it under its own scopes alone", async () => {
    wants(',error="insufficient_scope"');
    await list();
    await list();
    expect(scopes()).to.deep.equal(["repository:app:pull", "repository:app:pull,metadata_read"]);
    const tokens = registry.requests
      .filter(({ target }) => target.kind === "tags")
      .map(({ headers }) => headers.authorization);
    expect(tokens[2]).to.equal(tokens[0]);
    expect(tokens[3]).to.equal(tokens[1]);
    await client("GET", `app/blobs/${sha256(Buffer.from("x"))}`);
    const blob = registry.requests.find(({ target }) => target.kind === "blob");
    expect(blob?.headers.authorization).to.equal(tokens[0]);
  });

  for (const error of ["", ',error="insufficient_scope"']) {
    it(`and names that one alone, where the request needs another one besides${error}`, async () => {
      wants(error);
      registry.on(
        "GET tags",
        ({ request, fail, next }) =>
          !allows(request.headers, "metadata_read") || allows(request.headers, "pull")
            ? next()
            : fail(403, "DENIED"),
        "before auth",
      );
      expect(await list()).to.equal(200);
    });
  }

  it("that the account has not: the registry's refusal stands", async () => {
    wants();
    registry.on("GET token", ({ query, fail, next }) =>
      query.get("scope")?.endsWith("metadata_read") ? fail(403, "DENIED") : next(),
    );
    const answer = await client("GET", "app/tags/list");
    expect(answer.status).to.equal(403);
    expect(errorIn(answer).message).to.contain("answered 401 UNAUTHORIZED to the account");
  });

  it("in another repository: that is not asked for", async () => {
    registry.auth.challenge = ({ realm, service }) =>
      `Bearer realm="${realm}",service="${service}",scope="repository:secret:pull,push repository:app/x:*"`;
    registry.auth.rights = () => [];
    expect(await list()).to.equal(403);
    expect([...new Set(scopes())]).to.deep.equal(["repository:app:pull"]);
  });

  it(oddRegistry("insufficient-403"), async () => {
    registry.on("GET tags", ({ send, request }) => {
      const token = request.headers.authorization?.slice("Bearer ".length) ?? "";
      const actions = registry.auth.tokens.get(token)?.access[0]?.actions ?? [];
      const challenge = `Bearer realm="${registry.url}/token",error="insufficient_scope",scope="repository:app:metadata_read,pull"`;
      if (actions.includes("metadata_read")) send(200, {}, Buffer.from("{}"));
      else send(403, { "WWW-Authenticate": challenge });
    });
    expect(await list()).to.equal(200);
    expect(count("tags")).to.equal(2);
  });

  it("that ends: no request is sent more than a few times", async () => {
    registry.auth.challenge = ({ realm, service }) =>
      `Bearer realm="${realm}",service="${service}${count("tags")}",scope="repository:app:x_${"y".repeat(count("tags"))}"`;
    revokeTokensAfter(registry, 0);
    registry.on("GET tags", ({ fail, response }) => {
      const { challenge } = registry.auth;
      const wanted = {
        realm: `${registry.url}/token`,
        service: "s",
        scope: "",
        error: undefined,
      };
      response.setHeader("WWW-Authenticate", challenge(wanted));
      fail(401, "UNAUTHORIZED");
    });
    expect(await list()).to.equal(403);
    expect(count("tags")).to.be.within(2, 6);
  });
});
