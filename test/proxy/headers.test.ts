import { expect } from "chai";
import {
  headersForClient,
  storageHeadersForClient,
} from "../../src/proxy/relay/client-response.ts";
import { headersForRegistry, headersForStorage } from "../../src/proxy/relay/upstream-request.ts";

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

describe("request headers for a registry", () => {
  const kept = {
    accept: "application/vnd.oci.image.manifest.v1+json, */*",
    "accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5",
    "content-range": "0-4",
    "content-type": "application/octet-stream",
    "if-none-match": '"x"',
    range: "bytes=0-1,3-",
    "x-anything": "else",
  };

  it("are the client's, without what is between two hops and what is its own", () => {
    const own = {
      authorization: "Basic x",
      "content-length": "5",
      cookie: "a=b",
      expect: "100-continue",
      forwarded: "for=1.2.3.4",
      host: "c-harbor.team-a.svc",
      via: "1.1 other",
      "x-forwarded-for": "1.2.3.4",
      "x-forwarded-host": "h",
      "x-forwarded-port": "1",
      "x-forwarded-prefix": "/x",
      "x-forwarded-proto": "https",
      "x-real-ip": "1.2.3.4",
    };
    expect(headersForRegistry({ ...hopByHop, ...own, ...kept })).to.deep.equal({
      ...kept,
      "user-agent": "oci-connector",
    });
  });

  it("name us, and the client behind us", () => {
    const { "user-agent": agent } = headersForRegistry({ "user-agent": "skopeo/1.9" });
    expect(agent).to.equal("oci-connector skopeo/1.9");
  });

  it("are few for a host that the registry redirects to", () => {
    const few = { accept: "*/*", "accept-encoding": "gzip", range: "bytes=1-", "if-range": '"x"' };
    expect(headersForStorage({ ...kept, ...few, authorization: "Bearer x" })).to.deep.equal({
      ...few,
      "user-agent": "oci-connector",
    });
  });
});

describe("response headers for a client", () => {
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
    expect(headersForClient({ ...hopByHop, ...hidden, ...kept }, undefined)).to.deep.equal(kept);
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

describe("a credential that a registry echoes in its headers", () => {
  it("goes no further, in whatever header it is", () => {
    const headers = {
      "x-echo": "Bearer abc.def.ghi",
      "x-other": ["a", "token=abc.def.ghi;"],
      etag: "1",
    };
    expect(headersForClient(headers, "Bearer abc.def.ghi")).to.deep.equal({ etag: "1" });
  });

  it("is not looked for where it is too short to mean anything", () => {
    expect(headersForClient({ etag: "YTpi" }, "Basic YTpi")).to.deep.equal({ etag: "YTpi" });
  });
});
