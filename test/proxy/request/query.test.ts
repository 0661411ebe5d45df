import { expect } from "chai";
import fc from "fast-check";
import {
  countParameters,
  joinQueries,
  parameter,
  parameterNames,
  withoutParameters,
  withQuery,
} from "../../../src/proxy/request/query.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { growthOf } from "../../support/growth.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy } from "../test-proxy.ts";

describe("withoutParameters(): a query without some of its parameters", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", ""],
    ["ns=docker.io", ""],
    ["ns", ""],
    ["ns=", ""],
    ["n=1&ns=docker.io&last=x", "n=1&last=x"],
    ["ns=a&ns=b", ""],
    ["nsx=1&xns=2&NS=3", "nsx=1&xns=2&NS=3"],
    ["_state=a%2Bb%3D%3D&digest=sha256:0&ns=x", "_state=a%2Bb%3D%3D&digest=sha256:0"],
    ["a=ns&b=x%26ns%3D1", "a=ns&b=x%26ns%3D1"],
    ["&&a&&", "&&a&&"],
    // A registry decodes names, so that these are the same parameter.
    ["%6es=x&a=1", "a=1"],
    ["n%73=x", ""],
    ["%6E%73=x", ""],
    ["%=1&a=2", "%=1&a=2"],
  ];
  for (const [query, expected] of cases) {
    it(query, () => expect(withoutParameters(query, ["ns"])).to.equal(expected));
  }

  const name = fc.constantFrom("ns", "mount", "from", "n", "last", "%6es", "f%72om", "%", "%zz");
  const value = fc.stringMatching(/^[!-%'-~]*$/);
  const queries = fc
    .array(fc.tuple(name, value).map(([key, text]) => (text === "" ? key : `${key}=${text}`)))
    .map((parts) => parts.join("&"));

  it("keeps all others byte for byte, and in order", () => {
    fc.assert(
      fc.property(queries, (query) => {
        const kept = withoutParameters(query, ["ns", "mount"]);
        const read = (text: string): string[] => [...new URLSearchParams(text).keys()];
        expect(read(kept)).to.not.include.members(["ns"]);
        expect(read(kept)).to.not.include.members(["mount"]);
        const parts = query.split("&");
        let at = 0;
        for (const part of kept === "" ? [] : kept.split("&")) {
          at = parts.indexOf(part, at) + 1;
          expect(at).to.be.above(0);
        }
        const others = read(query).filter((key) => key !== "ns" && key !== "mount");
        expect(read(kept)).to.deep.equal(others);
      }),
    );
  });
});

describe("parameter(): a parameter of a query", () => {
  it("is decoded", () => {
    const query = "a=1&from=namespaces%2Fx%2fy&from=2&b+c=d+e&empty=&none&bad=%zz&x=%c3%a4";
    expect(parameter(query, "from")).to.equal("namespaces/x/y");
    expect(parameter(query, "a")).to.equal("1");
    expect(parameter(query, "b c")).to.equal("d e");
    expect(parameter(query, "empty")).to.equal("");
    expect(parameter(query, "none")).to.equal("");
    expect(parameter(query, "bad")).to.equal("%zz");
    expect(parameter(query, "x")).to.equal("ä");
    expect(parameter(query, "nothing")).to.equal(undefined);
    expect(parameter("", "a")).to.equal(undefined);
    expect(parameter("fr%6Fm=x", "from")).to.equal("x");
  });
});

it("queries are joined with nothing between nothing", () => {
  expect(joinQueries()).to.equal("");
  expect(joinQueries("", "a=1", "", "b")).to.equal("a=1&b");
  expect(withQuery("/v2/", "")).to.equal("/v2/");
  expect(withQuery("/v2/", "a")).to.equal("/v2/?a");
  expect(withQuery("/v2/?a", "b")).to.equal("/v2/?a&b");
});

describe("a query of a client or of a registry's upload URL", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let client: TestClient;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    registry.repository("app").tags.set("1", "x");
    const proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url);
    client = clientOf(proxy, "harbor");
  });
  beforeEach(() => {
    registry.requests.length = 0;
  });
  after(resources.stop);

  const manyParameters = (count: number): string =>
    Array.from({ length: count }, (_, index) => `p${index}=`).join("&");

  it("may have 8 KiB, and not more", async () => {
    const ask = (bytes: number) => client("GET", `app/tags/list?last=${"x".repeat(bytes - 5)}`);
    expect((await ask(8192)).status).to.equal(200);
    registry.requests.length = 0;
    const answer = await ask(8193);
    expect(answer.status).to.equal(414);
    expect(errorIn(answer).message).to.contain("8193 bytes");
    expect(registry.requests).to.deep.equal([]);
  });

  it("may have 64 parameters, and not more", async () => {
    const ask = (count: number) => client("GET", `app/tags/list?${manyParameters(count)}`);
    expect((await ask(64)).status).to.equal(200);
    registry.requests.length = 0;
    const answer = await ask(65);
    expect(answer.status).to.equal(400);
    expect(errorIn(answer).message).to.contain("65 parameters");
    expect(registry.requests).to.deep.equal([]);
  });

  const beginUpload = async (query: string) => {
    const stop = registry.on("POST uploads", ({ send }) =>
      send(202, { Location: `${registry.url}/v2/app/blobs/uploads/1?${query}` }),
    );
    const answer = await client("POST", "app/blobs/uploads/");
    stop();
    return answer;
  };

  it("of a registry goes back to it, with the client's own of any size that it may have", async () => {
    const state = `_state=${"s".repeat(8192 - 7)}`;
    const begun = await beginUpload(state);
    expect(begun.status).to.equal(202);
    const location = String(begun.headers.location);
    const own = `digest=sha256:0&${manyParameters(63)}`;
    await client("PUT", `${location}${location.includes("?") ? "&" : "?"}${own}`);
    expect(registry.requests.at(-1)?.url).to.equal(`/v2/app/blobs/uploads/1?${state}&${own}`);
  });

  it("of a registry that is longer ends the upload, and tells why", async () => {
    for (const query of [`_state=${"s".repeat(8192)}`, manyParameters(7_500)]) {
      const answer = await beginUpload(query);
      expect(answer.status).to.equal(502);
      expect(errorIn(answer).message).to.contain("upload URL");
    }
  });

  it("takes time in proportion to its length", () => {
    const prepare = (size: number) => {
      const own = manyParameters(size);
      const query = manyParameters(2 * size);
      return () => withoutParameters(query, parameterNames(own));
    };
    expect(growthOf(prepare, 4_000, 2.5)).to.be.at.most(2.5);
    expect(growthOf((size) => () => countParameters("&".repeat(size)), 8_000, 2.5)).to.be.at.most(
      2.5,
    );
  });
});
