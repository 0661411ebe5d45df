import { expect } from "chai";
import {
  parseRegistryAddress,
  type RegistryAddress,
} from "../../../src/connector/registry-address.ts";
import {
  headersForRegistry,
  headersForStorage,
  resolveUpstream,
  upstreamPath,
} from "../../../src/proxy/relay/upstream-request.ts";
import {
  parseRequestTarget,
  type RepositoryTarget,
} from "../../../src/proxy/request/request-target.ts";
import { version } from "../../../src/version.ts";
import { cleanup } from "../../support/cleanup.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { clientOf } from "../test-client.ts";
import { startTestProxy } from "../test-proxy.ts";

const prefix = "/v2/namespaces/team-a/connectors/harbor/";
const harbor = addressOf("https://harbor.test");
const hub = addressOf("https://docker.io");
const based = addressOf("https://jfrog.test:8443/artifactory/docker");

describe("where a registry has what a client names", () => {
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

describe("a URL that a registry names", () => {
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

/** What one server or another takes for another method, another path, another host or another user. */
const obeyed = [
  "Base-Url",
  "Client-IP",
  "Destination",
  "Forwarded",
  "Fastly-Client-IP",
  "Front-End-Https",
  "Location",
  "Origin",
  "Referer",
  "Remote-User",
  "True-Client-IP",
  "Via",
  "X-Auth-Request-User",
  "X-Authenticated-User",
  "X-Forwarded",
  "X-Forwarded-For",
  "X-Forwarded-Host",
  "X-Forwarded-Method",
  "X-Forwarded-Path",
  "X-Forwarded-Prefix",
  "X-Forwarded-Proto",
  "X-Forwarded-Scheme",
  "X-Forwarded-Server",
  "X-Forwarded-Ssl",
  "X-Forwarded-Uri",
  "X-Forwarded-User",
  "X-Host",
  "X-HTTP-Method",
  "X-HTTP-Method-Override",
  "X-JFrog-Art-Api",
  "X-Method-Override",
  "X-Original-Host",
  "X-Original-Method",
  "X-Original-URL",
  "X-Proxy-User",
  "X-Real-IP",
  "X-Remote-User",
  "X-Rewrite-URL",
  "X-User",
  "X_Forwarded_Host",
];

describe("headers for a registry", function () {
  this.timeout(20_000);

  const kept = {
    accept: "application/vnd.oci.image.manifest.v1+json, */*",
    "accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5",
    "content-range": "0-4",
    "content-type": "application/octet-stream",
    "if-none-match": '"x"',
    range: "bytes=0-1,3-",
    "cache-control": "no-cache",
    "content-digest": "sha-256=:x:",
    "docker-upload-uuid": "1",
    "oci-tag": ["a", "b"],
    "want-repr-digest": "sha-256=9",
    "x-request-id": "7",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate: "vendor=1",
  };

  it("are those of the client that the protocol knows, without what is between two hops", () => {
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
      "x-anything": "else",
    };
    expect(headersForRegistry({ ...hopByHop, ...own, ...kept })).to.deep.equal({
      ...kept,
      "user-agent": `oci-connector/${version}`,
    });
  });

  it("are none that some servers obey", async () => {
    const resources = cleanup();
    try {
      const registry = resources.add(await startFakeRegistry());
      registry.repository("app").tags.set("1", "x");
      const proxy = resources.add(await startTestProxy());
      proxy.connect("harbor", registry.url);
      const client = clientOf(proxy, "harbor");
      const headers = Object.fromEntries(obeyed.map((name) => [name, "evil"]));
      const answer = await client("GET", "app/tags/list", {
        headers: { ...headers, "x-request-id": "7" },
      });
      expect(answer.status).to.equal(200);
      const got = registry.requests.at(-1)?.headers ?? {};
      expect(got["x-request-id"]).to.equal("7");
      expect(got).to.not.have.any.keys(...obeyed.map((name) => name.toLowerCase()));
      expect(JSON.stringify(got)).to.not.contain("evil");
    } finally {
      await resources.stop();
    }
  });

  it("name us, and the client behind us", () => {
    const { "user-agent": agent } = headersForRegistry({ "user-agent": "skopeo/1.9" });
    expect(agent).to.equal(`oci-connector/${version} skopeo/1.9`);
  });

  it("are few for a host that the registry redirects to", () => {
    const few = { accept: "*/*", "accept-encoding": "gzip", range: "bytes=1-", "if-range": '"x"' };
    expect(headersForStorage({ ...kept, ...few, authorization: "Bearer x" })).to.deep.equal({
      ...few,
      "user-agent": `oci-connector/${version}`,
    });
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
