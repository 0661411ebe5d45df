import { expect } from "chai";
import fc from "fast-check";
import {
  addressRule,
  isDockerHub,
  parseRegistryAddress,
  upstreamRepository,
} from "../../src/connector/registry-address.ts";

const read = (text: unknown) => parseRegistryAddress(text, "spec.address");

function accepted(text: string) {
  const address = read(text);
  if (!address.ok) throw new Error(`${text} was refused`);
  return address.value;
}

const found = (text: unknown): string | undefined => {
  const address = read(text);
  return address.ok ? undefined : address.problems.map((problem) => problem.found).join();
};

describe("the address of a registry", () => {
  it("is read into what requests and image names need", () => {
    expect(accepted("https://harbor.example.com:8443/artifactory/api/docker/x")).to.deep.equal({
      origin: "https://harbor.example.com:8443",
      scheme: "https",
      hostname: "harbor.example.com",
      port: 8443,
      basePath: "/artifactory/api/docker/x",
      imageHost: "harbor.example.com:8443",
    });
  });

  const longestHost = `${"a.".repeat(126)}b`;
  const origins: readonly [claim: string, address: string, origin: string][] = [
    ["keeps http where it is written", "http://reg.example.com", "http://reg.example.com"],
    ["leaves out the port that https has anyway", "https://r.test:443", "https://r.test"],
    ["leaves out the port that http has anyway", "http://r.test:80", "http://r.test"],
    ["keeps the other scheme's port", "http://r.test:443", "http://r.test:443"],
    [
      "reads scheme and host in small letters",
      "HTTPS://Harbor.Example.COM",
      "https://harbor.example.com",
    ],
    ["may be a host name of one label", "http://registry:5000", "http://registry:5000"],
    ["may have an underscore, as container networks do", "http://my_reg", "http://my_reg"],
    ["may be an IPv4 address", "https://10.0.0.7:5000", "https://10.0.0.7:5000"],
    ["reads an odd IPv4 address as what is dialled", "https://0x7f.1", "https://127.0.0.1"],
    ["may be an IPv6 address", "https://[2001:DB8::7]:5000", "https://[2001:db8::7]:5000"],
    ["may be as long as DNS allows", `http://${longestHost}`, `http://${longestHost}`],
    ["may end in a slash", "https://r.test/", "https://r.test"],
  ];
  for (const [claim, address, origin] of origins) {
    it(claim, () => {
      expect(accepted(address).origin).to.equal(origin);
    });
  }

  it("knows the port of a scheme", () => {
    expect(accepted("http://r.test").port).to.equal(80);
    expect(accepted("https://r.test").port).to.equal(443);
  });

  it("names an IPv6 host as sockets want it and as images want it", () => {
    const { hostname, imageHost } = accepted("https://[2001:db8::7]:5000");
    expect(hostname).to.equal("2001:db8::7");
    expect(imageHost).to.equal("[2001:db8::7]:5000");
  });

  const basePaths: readonly [claim: string, address: string, basePath: string][] = [
    ["is empty where there is none", "https://r.test", ""],
    ["has no slash at its end", "https://r.test/a/b/", "/a/b"],
    ["has no empty segment", "https://r.test//a//b", "/a/b"],
    [
      "keeps capitals, dots, dashes, underscores and tildes",
      "https://r.test/A.b-c_d~e",
      "/A.b-c_d~e",
    ],
  ];
  for (const [claim, address, basePath] of basePaths) {
    it(`has a base path that ${claim}`, () => {
      expect(accepted(address).basePath).to.equal(basePath);
    });
  }

  const refused: readonly [claim: string, address: unknown][] = [
    ["nothing", undefined],
    ["null", null],
    ["a number", 443],
    ["a list", ["https://r.test"]],
    ["an object", { value: "https://r.test" }],
    ["an empty text", ""],
    ["a host without a scheme", "harbor.example.com"],
    ["another scheme", "ftp://r.test"],
    ["a scheme without a host", "https://"],
    ["a path without a host", "https:///v2"],
    ["one slash after the scheme", "https:/r.test"],
    ["backslashes after the scheme", "https:\\\\r.test"],
    ["a backslash in the path", "https://r.test\\..\\x"],
    ["a query", "https://r.test?a=b"],
    ["a query after a path", "https://r.test/a?b"],
    ["a fragment", "https://r.test#a"],
    ["a user", "https://bob@r.test"],
    ["a user and a password", "https://bob:pw@r.test"],
    ["port 0", "https://r.test:0"],
    ["a port that is too high", "https://r.test:65536"],
    ["a port that is no number", "https://r.test:http"],
    ["a colon without a port", "https://r.test:"],
    ["a space in front", " https://r.test"],
    ["a space in the host", "https://r .test"],
    ["a newline behind", "https://r.test\n"],
    ["a newline in the path", "https://r.test/a\nb"],
    ["a tab in the host, which URL leaves out", "https://r\t.test"],
    ["a quote in the host", 'https://r".test'],
    ["a quote in the path", 'https://r.test/"'],
    ["an escape in the path", "https://r.test/a%2fb"],
    ["an escape in the host", "https://r%2etest"],
    ["a segment .. in the path", "https://r.test/a/../b"],
    ["a segment . in the path", "https://r.test/./a"],
    ["a host of dots", "https://.."],
    ["a host with two dots in a row", "https://a..b"],
    ["a host that ends in a dot", "https://r.test."],
    ["a host that begins with a dash", "https://-r.test"],
    ["a host that is longer than DNS allows", `https://${longestHost}b`],
    ["an IPv4 address that is none", "https://1.2.3.400"],
    ["an IPv6 address that is none", "https://[::zz]"],
    ["an IPv6 address without brackets", "https://2001:db8::7"],
    ["an IPv6 address with a zone", "https://[fe80::1%25eth0]"],
    ["a host beyond ASCII", "https://größe.test"],
  ];
  for (const [claim, address] of refused) {
    it(`can't be ${claim}`, () => {
      const result = read(address);
      expect(
        result.ok ? result.value : result.problems.map(({ path, wanted }) => [path, wanted]),
      ).to.deep.equal([["spec.address", addressRule]]);
    });
  }

  const shown: readonly [claim: string, address: unknown, found: string][] = [
    ["a user with a password", "https://bob:s3cr3t@r.test/a", '"https://…@r.test/a"'],
    ["a password with a slash", "https://bob:s3/cr3t@r.test", '"https://…@r.test"'],
    ["a password with an @", "https://bob:s3@cr3t@r.test", '"https://…@r.test"'],
    ["a password with a newline", "https://bob:s3\ncr3t@r.test", '"https://…@r.test"'],
    ["a password without a scheme", "bob:s3cr3t@r.test", '"…@r.test"'],
    ["a password behind a scheme of its own", "oci://bob:s3cr3t@r.test", '"…@r.test"'],
    ["a password in a list", ["https://bob:s3cr3t@r.test"], "something that is not text"],
    ["nothing of an address that is not there", undefined, "nothing"],
    ["all of an address without a user", "ftp://r.test/a", '"ftp://r.test/a"'],
  ];
  for (const [claim, address, text] of shown) {
    it(`is refused without a word of what may be secret: ${claim}`, () => {
      expect(found(address)).to.equal(text);
    });
  }

  it("never shows what stands before an @, wherever that is", () => {
    const scheme = fc.constantFrom("", "http://", "https://", "HTTPS://", "https:/", "//", "x://");
    fc.assert(
      fc.property(scheme, fc.string(), fc.string(), (start, before, after) => {
        expect(found(`${start}${before}S3CR3T${after}@r.test`)).not.to.contain("S3CR3T");
      }),
    );
  }).timeout(20_000);
});

describe("the address of Docker Hub", () => {
  for (const address of [
    "https://docker.io",
    "https://www.docker.io",
    "https://hub.docker.com",
    "https://index.docker.io/v1/",
    "https://registry.hub.docker.com",
    "https://registry-1.docker.io",
    "http://Docker.IO/",
  ]) {
    it(`is meant by ${address}`, () => {
      expect(accepted(address)).to.deep.equal({
        origin: "https://registry-1.docker.io",
        scheme: "https",
        hostname: "registry-1.docker.io",
        port: 443,
        basePath: "",
        imageHost: "docker.io",
      });
    });
  }

  it("is not meant by a name that looks like it", () => {
    for (const host of ["docker.io.example.com", "mydocker.io", "auth.docker.io"]) {
      expect(isDockerHub(accepted(`https://${host}`)), host).to.equal(false);
    }
  });

  const hub = accepted("https://docker.io");
  const other = accepted("https://harbor.example.com");
  const repositories: readonly [claim: string, address: typeof hub, name: string, own: string][] = [
    ["keeps official images under library/", hub, "busybox", "library/busybox"],
    ["keeps other images as they are called", hub, "team/app", "team/app"],
    ["is the only registry that has library/", other, "busybox", "busybox"],
  ];
  for (const [claim, address, name, own] of repositories) {
    it(claim, () => {
      expect(upstreamRepository(address, name)).to.equal(own);
    });
  }
});

describe("the address of a registry, whatever is accepted", () => {
  const sign = fc.constantFrom(..."ab0Z.-_:/@%?#[]\\\"'\n\r\t \u0000\u007fé~");
  const mutated = fc
    .tuple(
      fc.constantFrom("http://", "https://", "HTTPS://", "https:", ""),
      fc.constantFrom(
        "r.test",
        "Harbor.example.com:8443",
        "10.0.0.7",
        "[2001:db8::7]:5000",
        "docker.io",
      ),
      fc.array(sign, { maxLength: 3 }),
      fc.constantFrom("", "/", "/a", "/A.b/c~d//"),
      fc.array(sign, { maxLength: 3 }),
    )
    .map(
      ([scheme, host, signs, path, more]) => scheme + host + signs.join("") + path + more.join(""),
    );
  const texts = fc.oneof(mutated, fc.webUrl({ withQueryParameters: true }), fc.string());

  const forAccepted = (check: (address: ReturnType<typeof accepted>) => void) =>
    fc.assert(
      fc.property(texts, (text) => {
        const address = read(text);
        if (address.ok) check(address.value);
      }),
      { numRuns: 2000 },
    );

  it("has an origin that URL reads as the same", () => {
    forAccepted(({ origin, hostname, port, scheme }) => {
      const url = new URL(origin);
      expect(url.origin).to.equal(origin);
      expect(url.protocol).to.equal(`${scheme}:`);
      expect(url.hostname.replace(/[[\]]/g, "")).to.equal(hostname);
      expect(Number(url.port || (scheme === "http" ? 80 : 443))).to.equal(port);
    });
  }).timeout(20_000);

  it("has no sign that could break out of a file or a path", () => {
    forAccepted(({ origin, basePath, imageHost }) => {
      expect(origin).to.match(/^https?:\/\/[a-z0-9._:[\]-]+$/);
      expect(imageHost)
        .to.match(/^[a-z0-9._:[\]-]+$/)
        .and.not.match(/^\.|\.\./);
      expect(basePath).to.match(/^(\/[A-Za-z0-9_-][A-Za-z0-9._~-]*)*$/);
      expect(`${origin}${basePath}${imageHost}`).not.to.match(/["'\\%\s\p{C}]/u);
    });
  }).timeout(20_000);

  it("is read the same from its own origin and base path", () => {
    forAccepted((address) => {
      expect(accepted(address.origin + address.basePath)).to.deep.equal(address);
    });
  }).timeout(20_000);
});
