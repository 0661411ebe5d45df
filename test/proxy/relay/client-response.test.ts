import { expect } from "chai";
import {
  parseRegistryAddress,
  type RegistryAddress,
} from "../../../src/connector/registry-address.ts";
import { clientLink } from "../../../src/proxy/relay/client-link.ts";
import { clientPath } from "../../../src/proxy/relay/client-location.ts";
import {
  headersForClient,
  storageHeadersForClient,
} from "../../../src/proxy/relay/client-response.ts";
import {
  parseRequestTarget,
  type RepositoryTarget,
} from "../../../src/proxy/request/request-target.ts";

const prefix = "/v2/namespaces/team-a/connectors/harbor/";
const harbor = addressOf("https://harbor.test");
const hub = addressOf("https://docker.io");
const based = addressOf("https://jfrog.test:8443/artifactory/docker");

const hopByHop = {
  connection: "keep-alive, X-Hop ,te",
  "keep-alive": "timeout=5",
  "proxy-authenticate": "Basic",
  "proxy-authorization": "Basic x",
  "proxy-connection": "keep-alive",
  te: "trailers",
  trailer: "X-Sum",
  "transfer-encoding": "chunked",
  upgrade: "h2c",
  "x-hop": "1",
};

describe("headers for a client", () => {
  const kept = {
    "accept-ranges": "bytes",
    "content-encoding": "gzip",
    "content-length": "5",
    "content-range": "bytes 0-4/9",
    "content-type": "application/octet-stream",
    "docker-content-digest": "sha256:0",
    "docker-distribution-api-version": "registry/2.0",
    "docker-upload-uuid": "1",
    etag: '"x"',
    "oci-chunk-min-length": "1",
    "oci-filters-applied": "artifactType",
    "oci-subject": "sha256:1",
    "oci-tag": ["a", "b"],
    range: "0-4",
    "ratelimit-remaining": "99;w=21600",
    "retry-after": "3",
    warning: '299 - "old"',
    "x-anything": "else",
  };
  const hidden = {
    "alt-svc": "h2=x",
    link: "</v2/a>",
    location: "https://harbor.test/v2/",
    "proxy-authentication-info": "x",
    "public-key-pins": "x",
    "set-cookie": ["a=b"],
    "strict-transport-security": "max-age=1",
    "www-authenticate": "Basic",
    "x-registry-supports-signatures": "1",
  };

  it("are the registry's, without what is between two hops and what is for others", () => {
    expect(headersForClient({ ...hopByHop, ...hidden, ...kept })).to.deep.equal(kept);
  });

  it("are those alone that describe a blob where they come from a storage", () => {
    const {
      "docker-distribution-api-version": _1,
      "docker-upload-uuid": _2,
      "oci-chunk-min-length": _3,
      "oci-filters-applied": _4,
      "oci-subject": _5,
      "oci-tag": _6,
      range: _7,
      "ratelimit-remaining": _8,
      warning: _9,
      "x-anything": _10,
      ...few
    } = kept;
    const storage = { ...hopByHop, ...hidden, ...kept, "x-amz-request-id": "1", server: "S3" };
    expect(storageHeadersForClient(storage)).to.deep.equal(few);
  });
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
    ["</v2/app/a>; rel=x, </v2/other/b>; rel=y", `<${prefix}app/a>; rel=x`],
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
    for (const link of ["<", "<a", "<>", ">", "<a>", '<a>\\"']) {
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
