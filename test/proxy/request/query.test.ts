import { expect } from "chai";
import fc from "fast-check";
import {
  joinQueries,
  parameter,
  withoutParameters,
  withQuery,
} from "../../../src/proxy/request/query.ts";

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
