import { expect } from "chai";
import {
  parseRegistryAddress,
  type RegistryAddress,
} from "../../../src/connector/registry-address.ts";
import { clientLink, clientPath } from "../../../src/proxy/relay/client-response.ts";
import { resolveUpstream, upstreamPath } from "../../../src/proxy/relay/upstream-request.ts";
import {
  parseRequestTarget,
  type RepositoryTarget,
} from "../../../src/proxy/request/request-target.ts";

const prefix = "/v2/namespaces/team-a/connectors/harbor/";
const harbor = addressOf("https://harbor.test");
const hub = addressOf("https://docker.io");
const based = addressOf("https://jfrog.test:8443/artifactory/docker");

describe("upstreamPath(): where a registry has what a client names", () => {
  const cases: readonly (readonly [RegistryAddress, string, string])[] = [
    [harbor, "app", "/v2/app/"],
    [harbor, "v2/app", "/v2/v2/app/"],
    [hub, "alpine", "/v2/library/alpine/"],
    [hub, "a/b", "/v2/a/b/"],
    [based, "app", "/artifactory/docker/v2/app/"],
  ];
  for (const [address, repository, path] of cases) {
    it(`${address.origin}: ${repository}`, () => {
      expect(upstreamPath(targetOf(`${repository}/tags/list`), address)).to.equal(path);
    });
  }
});

describe("resolveUpstream(): a URL that a registry names", () => {
  const cases: readonly (readonly [string, string, string | undefined, RegistryAddress?])[] = [
    ["is resolved against what was asked", "/v2/app/blobs/x", "https://harbor.test/v2/app/blobs/x"],
    ["may be relative", "next?_state=a%3D%3D", "https://harbor.test/v2/app/next?_state=a%3D%3D"],
    ["may be elsewhere", "https://s3.test/b?sig=%2F", "https://s3.test/b?sig=%2F"],
    [
      "is asked where the API is: scheme",
      "http://harbor.test/v2/a?b",
      "https://harbor.test/v2/a?b",
    ],
    [
      "is asked where the API is: port",
      "https://harbor.test:5000/v2/a",
      "https://harbor.test/v2/a",
    ],
    ["is asked where the API is: user", "https://a:b@harbor.test/v2/a", "https://harbor.test/v2/a"],
    ["without a scheme", "//harbor.test:80/v2/a", "https://harbor.test/v2/a"],
    ["outside the API, as it is", "http://harbor.test/up/a", "http://harbor.test/up/a"],
    ["Google's uploads", "/artifacts-uploads/x", "https://harbor.test/artifacts-uploads/x"],
    [
      "of a base path",
      "http://jfrog.test/artifactory/docker/v2/a",
      "https://jfrog.test:8443/artifactory/docker/v2/a",
      based,
    ],
    ["outside of a base path", "http://jfrog.test/v2/a", "http://jfrog.test/v2/a", based],
    ["another protocol", "ftp://harbor.test/v2/a", undefined],
    ["a script", "javascript:alert(1)", undefined],
    ["no URL", "https://[", undefined],
  ];
  for (const [name, text, expected, address = harbor] of cases) {
    it(`${name}: ${text}`, () => {
      const asked = new URL(`${address.origin}/v2/app/`);
      expect(resolveUpstream(text, asked, address)?.href).to.equal(expected);
    });
  }
});

describe("clientPath(): what a client asks for a registry's URL", () => {
  const cases: readonly (readonly [string, string | undefined, RegistryAddress?])[] = [
    ["https://harbor.test/v2/app/blobs/sha256:0", `${prefix}app/blobs/sha256:0`],
    ["https://harbor.test/v2/app/tags/list?n=1&last=%2F", `${prefix}app/tags/list?n=1&last=%2F`],
    ["https://harbor.test/v2/other/blobs/sha256:0", undefined],
    ["https://harbor.test/v2/app2/blobs/sha256:0", undefined],
    ["https://harbor.test/v2/app/../other/blobs/sha256:0", undefined],
    ["https://harbor.test:444/v2/app/blobs/sha256:0", undefined],
    ["http://harbor.test/v2/app/blobs/sha256:0", undefined],
    ["https://elsewhere.test/v2/app/blobs/sha256:0", undefined],
    ["https://registry-1.docker.io/v2/library/app/tags/list", `${prefix}app/tags/list`, hub],
    ["https://jfrog.test:8443/artifactory/docker/v2/app/x", `${prefix}app/x`, based],
    ["https://jfrog.test:8443/v2/app/x", undefined, based],
  ];
  for (const [url, expected, address = harbor] of cases) {
    it(url, () => {
      const target = targetOf("app/tags/list");
      expect(clientPath(new URL(url), target, address)).to.equal(expected);
    });
  }

  it("has the form that the client used itself", () => {
    const short = parseRequestTarget("/v2/app/tags/list") as RepositoryTarget;
    const url = new URL("https://harbor.test/v2/app/blobs/sha256:0");
    expect(clientPath(url, short, harbor)).to.equal("/v2/app/blobs/sha256:0");
  });
});

describe("clientLink(): a Link header of a registry", function () {
  this.timeout(10_000);
  const cases: readonly (readonly [string, string | undefined])[] = [
    [
      '</v2/app/tags/list?n=1&last=a%2Fb>; rel="next"',
      `<${prefix}app/tags/list?n=1&last=a%2Fb>; rel="next"`,
    ],
    ["<https://harbor.test/v2/app/tags/list>;rel=next", `<${prefix}app/tags/list>;rel=next`],
    ["<http://harbor.test:80/v2/app/x>", `<${prefix}app/x>`],
    ["<list?n=1>", `<${prefix}app/tags/list?n=1>`],
    ["</v2/app/a>; rel=x, </v2/app/b>; rel=y", `<${prefix}app/a>; rel=x, <${prefix}app/b>; rel=y`],
    ["</v2/app/a>; rel=x, </v2/other/b>; rel=y", undefined],
    // The same list, which the registry knows under a name or a path of its own.
    [
      "<http://registry:5000/v2/app/tags/list?n=1&last=a%2Fb>; rel=next",
      `<${prefix}app/tags/list?n=1&last=a%2Fb>; rel=next`,
    ],
    ["</repository/x/v2/app/tags/list?n=1>", `<${prefix}app/tags/list?n=1>`],
    ["<http://registry:5000/v2/other/tags/list?n=1>", undefined],
    ["<http://registry:5000/v2/app/tags/list>", undefined],
    ["<https://elsewhere.test/v2/app/a>", undefined],
    ["<https://[>", undefined],
  ];
  for (const [link, expected] of cases) {
    it(link, () => {
      const asked = new URL("https://harbor.test/v2/app/tags/list");
      expect(clientLink(link, asked, targetOf("app/tags/list"), harbor)).to.equal(expected);
    });
  }

  it("may lack the registry's base path", () => {
    const asked = new URL("https://jfrog.test:8443/artifactory/docker/v2/app/tags/list?n=1");
    const link = "</v2/app/tags/list?n=1&last=a>; rel=next";
    const expected = `<${prefix}app/tags/list?n=1&last=a>; rel=next`;
    expect(clientLink(link, asked, targetOf("app/tags/list"), based)).to.equal(expected);
  });

  it("of the catalog leads to the catalog, in the form that the client used", () => {
    const asked = new URL("https://harbor.test/v2/_catalog?n=1");
    const link = "</v2/_catalog?n=1&last=a%2Fb>; rel=next";
    const short = parseRequestTarget("/v2/_catalog") as RepositoryTarget;
    expect(clientLink(link, asked, short, harbor)).to.equal(link);
    const full = `<${prefix}_catalog?n=1&last=a%2Fb>; rel=next`;
    expect(clientLink(link, asked, targetOf("_catalog"), harbor)).to.equal(full);
  });

  it("is read in time in proportion to its length", () => {
    const asked = new URL("https://harbor.test/v2/app/tags/list");
    for (const link of ["<", "<a", "<>", ">", "<a>"]) {
      // Quadratic would take longer than a test may.
      clientLink(link.repeat(400_000 / link.length), asked, targetOf("app/tags/list"), harbor);
    }
  });
});

function addressOf(text: string): RegistryAddress {
  const parsed = parseRegistryAddress(text, "");
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function targetOf(path: string): RepositoryTarget {
  const target = parseRequestTarget(prefix + path);
  if (target === "base") throw new Error(path);
  return target;
}
