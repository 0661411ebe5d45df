import { expect } from "chai";
import fc from "fast-check";
import { parseRegistryAddress } from "../../../src/connector/registry-address.ts";
import { upstreamPath } from "../../../src/proxy/relay/upstream-request.ts";
import {
  checkMethod,
  type Endpoint,
  parseRequestTarget,
  type RequestTarget,
} from "../../../src/proxy/request/request-target.ts";

const digest = `sha256:${"a".repeat(64)}`;
const connector = { namespace: "team-a", name: "harbor" };
const prefix = "/v2/namespaces/team-a/connectors/harbor/";

describe("parseRequestTarget(): the target of a request", function () {
  this.timeout(10_000);
  it("is the base, for the whole proxy and for a connector", () => {
    for (const target of ["/v2/", "/v2", "/v2/?x=y", prefix]) {
      expect(parseRequestTarget(target), target).to.equal("base");
    }
  });

  const accepted: readonly (readonly [string, string, Endpoint, string?])[] = [
    ["app/manifests/1.0", "app", { kind: "manifest", reference: "1.0" }],
    ["app/manifests/_x", "app", { kind: "manifest", reference: "_x" }],
    [`app/manifests/${digest}`, "app", { kind: "manifest", reference: digest }],
    [`a/b/c/blobs/${digest}`, "a/b/c", { kind: "blob", digest }],
    ["app/blobs/sha512:0", "app", { kind: "blob", digest: "sha512:0" }],
    ["app/blobs/uploads/", "app", { kind: "uploads" }],
    ["app/blobs/uploads", "app", { kind: "uploads" }],
    ["app/blobs/uploads/?mount=x&from=y", "app", { kind: "uploads" }, "mount=x&from=y"],
    ["app/blobs/uploads/aZ_-9", "app", { kind: "upload", id: undefined, session: "aZ_-9" }],
    ["app/tags/list", "app", { kind: "tags" }],
    ["app/tags/list?n=2&last=a%2Fb", "app", { kind: "tags" }, "n=2&last=a%2Fb"],
    ["app/tags/list?a?b", "app", { kind: "tags" }, "a?b"],
    [`app/referrers/${digest}`, "app", { kind: "referrers", digest }],
    // Components that are called like parts of the API.
    ["blobs/tags/list", "blobs", { kind: "tags" }],
    ["tags/list/tags/list", "tags/list", { kind: "tags" }],
    ["a/blobs/uploads/manifests/1", "a/blobs/uploads", { kind: "manifest", reference: "1" }],
    ["a/manifests/blobs/uploads/x", "a/manifests", { kind: "upload", id: undefined, session: "x" }],
    ["a/blobs/blobs/uploads/", "a/blobs", { kind: "uploads" }],
    [
      "uploads/blobs/uploads/uploads",
      "uploads",
      { kind: "upload", id: undefined, session: "uploads" },
    ],
    [`a/tags/list/blobs/${digest}`, "a/tags/list", { kind: "blob", digest }],
    ["manifests/manifests/manifests", "manifests", { kind: "manifest", reference: "manifests" }],
    ["namespaces/a/connectors/manifests/1", "namespaces/a/connectors", manifest("1")],
  ];

  for (const [path, repository, endpoint, query = ""] of accepted) {
    it(`is ${endpoint.kind} of ${repository}: ${path}`, () => {
      const rest = { repository, endpoint, query };
      expect(parseRequestTarget(prefix + path)).to.deep.equal({ connector, prefix, ...rest });
      if (path.startsWith("namespaces/")) return; // in the short form that names a connector
      const short = { connector: undefined, prefix: "/v2/", ...rest };
      expect(parseRequestTarget(`/v2/${path}`)).to.deep.equal(short);
    });
  }

  const refused = [
    "",
    "/",
    "/v1/",
    "/V2/",
    "//v2/",
    "/v2//",
    "/v2/.",
    "/v2/app",
    "/v2/app/",
    "/v2/_catalog/",
    "/v2/app/_catalog",
    "/v2/_catalog/tags/list",
    "/v2/tags/list",
    "/v2/blobs/uploads/",
    "*",
    "http://c-harbor.team-a.svc/v2/app/tags/list",
    "/v2/app/tags/list#x",
    "/v2/app/tags/list?a#b",
    "/v2/app/tags/list?a b",
    "/v2/app/tags/list?ä",
    "/v2/app/tags/list/",
    "/v2/app//tags/list",
    "/v2/./app/tags/list",
    "/v2/../v2/app/tags/list",
    "/v2/app/../other/tags/list",
    "/v2/a%2Fb/tags/list",
    "/v2/a%2e%2e/tags/list",
    "/v2/app/tags%2flist",
    "/v2/app/manifests/..",
    "/v2/app/manifests/a%00",
    "/v2/app/manifests/-x",
    `/v2/app/manifests/${"x".repeat(129)}`,
    "/v2/app\\b/tags/list",
    "/v2/App/tags/list",
    "/v2/app:1/tags/list",
    "/v2/app;x/tags/list",
    "/v2/app/blobs/uploads/x/",
    "/v2/app/blobs/uploads/x/y",
    `/v2/${"a/".repeat(129)}tags/list`,
    "/v2/namespaces/team-a/connectors/harbor",
    "/v2/namespaces/Team/connectors/harbor/app/tags/list",
    "/v2/namespaces/team-a/connectors/har.bor/app/tags/list",
    "/v2/namespaces/../connectors/harbor/app/tags/list",
    "/v2/namespaces//connectors/harbor/app/tags/list",
    `/v2/namespaces/team-a/connectors/${"x".repeat(62)}/app/tags/list`,
    `${prefix}tags/list`,
    `${prefix}/app/tags/list`,
  ];

  for (const target of refused) {
    it(`is refused: ${target}`, () => {
      expect(() => parseRequestTarget(target))
        .to.throw(/not part of the registry API/)
        .with.property("status", 404);
    });
  }

  it("has a colon that is encoded for what it is, and nothing else that is encoded", () => {
    const endpoint = { kind: "blob", digest };
    const rest = { connector, prefix, repository: "app", endpoint, query: "x=%3A" };
    for (const colon of ["%3A", "%3a"]) {
      const path = `${prefix}app/blobs/${digest.replace(":", colon)}?x=%3A`;
      expect(parseRequestTarget(path)).to.deep.equal(rest);
    }
    for (const path of ["%253A", "%3", "%2E%2E", "%61pp", "%2F"]) {
      expect(() => parseRequestTarget(`${prefix}app/manifests/${path}`)).to.throw(
        /not part of the/,
      );
    }
  });

  const sessions: readonly (readonly [string, object, string])[] = [
    ["aZ_-9", { id: undefined, session: "aZ_-9" }, ""],
    ["aZ_-9?digest=x", { id: undefined, session: "aZ_-9" }, "digest=x"],
    ["1?_state=aZ_-9", { id: "1", session: "aZ_-9" }, ""],
    ["1?_state=aZ_-9&digest=x", { id: "1", session: "aZ_-9" }, "digest=x"],
    ["1?_state=aZ_-9?digest=x", { id: "1", session: "aZ_-9" }, "digest=x"],
    ["1?_state=aZ_-9?digest=x&_x=a?b", { id: "1", session: "aZ_-9" }, "digest=x&_x=a?b"],
    ["1?digest=x&_state=aZ_-9", { id: "1", session: "aZ_-9" }, "digest=x"],
    ["1?_state=", { id: "1", session: "" }, ""],
    ["1?_state=a&_state=a", { id: "1", session: "" }, ""],
    ["1?_state=a?_state=b", { id: "1", session: "" }, ""],
    ["1?_state=a&%5fstate=a", { id: "1", session: "" }, ""],
    [`1?_state=${"a".repeat(20_000)}`, { id: "1", session: "a".repeat(20_000) }, ""],
  ];
  for (const [end, upload, query] of sessions) {
    it(`is an upload: ${end.slice(0, 100)}`, () => {
      expect(parseRequestTarget(`${prefix}app/blobs/uploads/${end}`)).to.deep.equal({
        connector,
        prefix,
        repository: "app",
        endpoint: { kind: "upload", ...upload },
        query,
      });
    });
  }

  it("has a session nowhere else", () => {
    for (const path of ["app/blobs/uploads/", "app/tags/list", "app/blobs/uploads/tags/list"]) {
      const target = parseRequestTarget(`${prefix}${path}?_state=a`);
      expect(target).to.have.property("query", "_state=a");
    }
  });

  const withoutDigest = [
    "/v2/app/blobs/1.0",
    "/v2/app/blobs/sha256:",
    "/v2/app/blobs/sha256:..",
    `/v2/app/blobs/sha256:${"a".repeat(300)}`,
    "/v2/app/referrers/latest",
    `${prefix}app/referrers/sha256:`,
  ];
  for (const target of withoutDigest) {
    it(`is refused for the lack of a digest: ${target}`, () => {
      expect(() => parseRequestTarget(target))
        .to.throw(/no digest where one is required/)
        .with.property("status", 400);
    });
  }

  it("is the catalog, of a connector and of the one that the host names", () => {
    const rest = { repository: "", endpoint: { kind: "catalog" }, query: "n=2&last=a%2Fb" };
    const query = "?n=2&last=a%2Fb";
    expect(parseRequestTarget(`${prefix}_catalog${query}`)).to.deep.equal({
      connector,
      prefix,
      ...rest,
    });
    expect(parseRequestTarget(`/v2/_catalog${query}`)).to.deep.equal({
      connector: undefined,
      prefix: "/v2/",
      ...rest,
    });
  });

  it("names the same path in what it returns, whatever it accepts", () => {
    fc.assert(
      fc.property(paths, (path) => {
        const target = parse(path);
        if (target === undefined || target === "base") return;
        const { endpoint, repository } = target;
        expect(rebuilt(target)).to.be.oneOf([path, `${path}/`]);
        // An upload's own path never goes to a registry.
        if (endpoint.kind === "upload") return;
        const upstream = upstreamPath(target, address) + lastPart(endpoint);
        expect(new URL(`https://harbor.test${upstream}`).pathname).to.equal(upstream);
        expect(upstream).to.equal(`/base/v2/${inApi(repository, endpoint)}`);
        expect(upstream).to.not.match(/%|\/\/|\/\.\.?(\/|$)|\\/);
      }),
      { numRuns: 5000 },
    );
  });

  it("never throws anything but a refusal", () => {
    fc.assert(
      fc.property(fc.string({ unit: character }), (text) => {
        parse(text);
        parse(`/v2/${text}`);
        parse(prefix + text);
      }),
    );
  });
});

describe("the methods of the proxy's requests", () => {
  const allowed: Readonly<Record<Endpoint["kind"] | "base", string>> = {
    base: "GET HEAD",
    catalog: "GET HEAD",
    manifest: "DELETE GET HEAD PUT",
    blob: "DELETE GET HEAD",
    uploads: "POST",
    upload: "DELETE GET HEAD PATCH PUT",
    tags: "GET HEAD",
    referrers: "GET HEAD",
  };
  const methods = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

  for (const [kind, expected] of Object.entries(allowed)) {
    it(`of ${kind}`, () => {
      const target = kind === "base" ? kind : ({ endpoint: { kind } } as RequestTarget);
      const passed = methods.filter((method) => {
        try {
          checkMethod(method, target);
          return true;
        } catch (error) {
          expect(error).to.have.property("status", 405);
          expect(error).to.have.nested.property("headers.allow");
          return false;
        }
      });
      expect(passed.join(" ")).to.equal(expected);
    });
  }
});

function manifest(reference: string): Endpoint {
  return { kind: "manifest", reference };
}

const parsedAddress = parseRegistryAddress("https://harbor.test/base", "");
if (!parsedAddress.ok) throw new Error("no address");
const address = parsedAddress.value;

function parse(target: string): RequestTarget | undefined {
  try {
    return parseRequestTarget(target);
  } catch (error) {
    expect(error).to.have.property("code").that.is.oneOf(["NAME_INVALID", "DIGEST_INVALID"]);
    return undefined;
  }
}

function rebuilt({ prefix, repository, endpoint }: Exclude<RequestTarget, "base">): string {
  return prefix + inApi(repository, endpoint);
}

const inApi = (repository: string, endpoint: Endpoint): string =>
  [repository, lastPart(endpoint)].filter((part) => part !== "").join("/");

function lastPart(endpoint: Endpoint): string {
  switch (endpoint.kind) {
    case "catalog":
      return "_catalog";
    case "manifest":
      return `manifests/${endpoint.reference}`;
    case "blob":
      return `blobs/${endpoint.digest}`;
    case "uploads":
      return "blobs/uploads/";
    case "upload":
      return `blobs/uploads/${endpoint.session}`;
    case "tags":
      return "tags/list";
    case "referrers":
      return `referrers/${endpoint.digest}`;
  }
}

const character = fc.nat(0x2ff).map((code) => String.fromCodePoint(code));

/** Paths of parts that are likely to be mistaken for each other. */
const parts = fc.constantFrom(
  "blobs",
  "uploads",
  "manifests",
  "tags",
  "list",
  "referrers",
  "namespaces",
  "connectors",
  "team-a",
  "harbor",
  "app",
  "a.b",
  "a_b",
  "latest",
  "1.0",
  digest,
  "sha256:0",
  "",
  "_catalog",
  ".",
  "..",
  "...",
  "%2e%2e",
  "%2F",
  "a%2fb",
  "A",
  "a\\b",
  "a;b",
  "a:b",
  "@",
  "~",
  "+",
  "=",
);
const paths = fc
  .tuple(
    fc.constantFrom("/v2/", prefix),
    fc.array(parts, { minLength: 1, maxLength: 4 }),
    fc.oneof(
      parts,
      fc.constantFrom("tags/list", "_catalog", "blobs/uploads/", "manifests/1", `blobs/${digest}`),
    ),
  )
  .map(([start, middle, end]) => `${start}${middle.join("/")}/${end}`);
