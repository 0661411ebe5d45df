import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { sha256 } from "../../support/oci-image.ts";
import type { PlainResponse } from "../../support/plain-request.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const tags = ["a", "b", "c", "d", "e"];

describe("a registry whose lists are odd", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let back: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    back = resources.add(await startFakeRegistry({ hostname: "localhost" }));
    proxy = resources.add(await startTestProxy());
    const params = [{ name: "allowedRedirectHosts", value: "localhost" }];
    proxy.connect("it", registry.url, { params });
    client = clientOf(proxy, "it");
    for (const tag of tags) {
      registry.repository("app").tags.set(tag, "x");
      back.repository("images/app").tags.set(tag, "x");
    }
  });
  beforeEach(() => {
    registry.requests.length = 0;
    back.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const nextIn = ({ headers }: PlainResponse): string | undefined =>
    /^<([^>]+)>; ?rel="?next"?$/.exec(String(headers.link))?.[1];

  async function readAll(first = "app/tags/list?n=2"): Promise<string[]> {
    const found: string[] = [];
    let path: string | undefined = first;
    for (let page = 0; path !== undefined; page += 1) {
      expect(page).to.be.below(5);
      const answer = await client("GET", path);
      expect(answer.status).to.equal(200);
      found.push(...JSON.parse(answer.body.toString()).tags);
      path = nextIn(answer);
      expect(path === undefined).to.equal(answer.headers.link === undefined);
    }
    return found;
  }

  const redirectLists = (keepsQuery: boolean): void =>
    undo.defer(
      registry.on("GET tags", ({ path, rawQuery, send }) => {
        const query = keepsQuery && rawQuery !== "" ? `?${rawQuery}` : "";
        send(307, { Location: `${back.url}${path.replace("/v2/", "/v2/images/")}${query}` });
      }),
    );

  it(oddRegistry("redirected-list"), async () => {
    redirectLists(true);
    expect(await readAll()).to.deep.equal(tags);
    expect(back.requests.map(({ headers }) => headers.authorization)).to.deep.equal([
      undefined,
      undefined,
      undefined,
    ]);
  });

  it(oddRegistry("redirect-loses-query"), async () => {
    redirectLists(false);
    expect(await readAll()).to.deep.equal(tags);
    expect(back.requests[0]?.url).to.equal("/v2/images/app/tags/list?n=2");
  });

  it("never looks whole where a redirect leads to a page that is not under the API", async () => {
    undo.defer(
      registry.on("GET tags", ({ path, send }) =>
        send(302, { Location: path.replace("/tags/list", "/manifests/page") }),
      ),
    );
    undo.defer(
      registry.on("GET manifest", ({ response }) => {
        response.setHeader("link", '</cdn/app/page2.json?x=1>; rel="next"');
        response.end(JSON.stringify({ name: "app", tags: ["a"] }));
      }),
    );
    const answer = await client("GET", "app/tags/list");
    expect(answer.status).to.equal(502);
    expect(errorIn(answer).message).to.contain("next page");
  });

  const answerWithLink = (link: string | readonly string[]) =>
    registry.on("GET tags", ({ response, query, next }) => {
      if (query.has("last")) return next();
      response.setHeader("link", link).setHeader("content-type", "application/json");
      response.end(JSON.stringify({ name: "app", tags: ["a", "b"] }));
      return undefined;
    });

  it(oddRegistry("link-elsewhere"), async () => {
    const next = "?n=3&last=b";
    for (const link of [
      `<https://inner.test/v2/remote/app/tags/list${next}>; rel=next`,
      `</v2/other/name/tags/list${next}>; rel="next"`,
      `<https://docs.test/tags>; rel="help"; title="a, <b>", </v2/app/tags/list${next}>; rel="next"`,
      [`</v2/app/tags/list${next}>; rel="next"`, `<https://docs.test>; rel=help`],
      `<${next}>; rel="next"`,
    ]) {
      const stop = answerWithLink(link);
      expect(await readAll("app/tags/list"), String(link)).to.deep.equal(tags);
      stop();
    }
  });

  it(oddRegistry("lost-next-page"), async () => {
    for (const link of [
      "<https://elsewhere.test/pages/2?sig=1>; rel=next",
      '</v2/other/manifests/x>; rel="next"',
      '<https://[>; rel="next"',
      '</pages/2>; title="x"; REL="prev Next"',
      '/v2/app/tags/list?last=b; rel="next"',
      '<https://docs.test>; rel=help, /v2/app/tags/list?last=b; rel="next"',
      '</v2/app/tags/list?last=b; rel="next", </v2/app/tags/list>; rel=first',
      '<https://docs.test>; title="not closed, </v2/app/tags/list?last=b>; rel="next"',
      ["<https://docs.test>; rel=help", "last=b; rel=next"],
    ]) {
      const stop = answerWithLink(link);
      const answer = await client("GET", "app/tags/list");
      stop();
      expect(answer.status, String(link)).to.equal(502);
      expect(errorIn(answer).message).to.contain("names a next page");
      expect(answer.body.toString()).to.not.contain("sig=1");
    }
    const stop = answerWithLink("<https://docs.test>; rel=help");
    const answer = await client("GET", "app/tags/list");
    stop();
    expect(answer.status).to.equal(200);
    expect(answer.headers.link).to.equal(undefined);
  });

  it(oddRegistry("referrers-by-tag"), async () => {
    const digest = sha256(Buffer.from("subject"));
    const index = JSON.stringify({ schemaVersion: 2, manifests: [] });
    const missing = registry.on("GET referrers", ({ fail }) => fail(404, "NOT_FOUND"));
    const moved = registry.on("GET manifest", ({ path, send }) =>
      send(307, { Location: `${back.url}${path}` }),
    );
    const byTag = back.on("GET manifest", ({ send }) =>
      send(200, { "Content-Type": "application/vnd.oci.image.index.v1+json" }, Buffer.from(index)),
    );
    expect((await client("GET", `app/referrers/${digest}`)).status).to.equal(404);
    const fallback = await client("GET", `app/manifests/${digest.replace(":", "-")}`);
    for (const stop of [missing, moved, byTag]) stop();
    expect(fallback.status).to.equal(200);
    expect(fallback.headers["content-type"]).to.equal("application/vnd.oci.image.index.v1+json");
    expect(fallback.body.toString()).to.equal(index);

    undo.defer(
      registry.on("GET referrers", ({ path, send }) =>
        send(307, { Location: `${back.url}${path}` }),
      ),
    );
    undo.defer(
      back.on("GET referrers", ({ path, rawQuery, response }) => {
        response.setHeader("link", `<${path}?${rawQuery}&page=2>; rel="next"`);
        response.end(index);
      }),
    );
    const filter = "artifactType=application%2Fx";
    const page = await client("GET", `app/referrers/${digest}?${filter}`);
    expect(page.headers.link).to.equal(
      `<${client.base}app/referrers/${digest}?${filter}&page=2>; rel="next"`,
    );
  });

  it(oddRegistry("rate-limit-headers"), async () => {
    const limits = {
      "ratelimit-limit": "100;w=21600",
      "ratelimit-remaining": "0;w=21600",
      "docker-ratelimit-source": "198.51.100.7",
    };
    for (const status of [200, 429]) {
      const stop = registry.on("* manifest", ({ send }) =>
        send(status, { ...limits, "Retry-After": "3600" }, Buffer.from("{}")),
      );
      for (const method of ["GET", "HEAD"]) {
        const answer = await client(method, "app/manifests/1");
        expect(answer.status).to.equal(status);
        expect(answer.headers).to.include(limits);
      }
      stop();
    }
  });
});
