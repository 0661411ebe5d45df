import { expect } from "chai";
import {
  isHostOf,
  parseAbsoluteTarget,
  parseConnectTarget,
} from "../../../src/proxy/forward-mode/forward-target.ts";

describe("the target of a CONNECT", () => {
  const right: readonly [text: string, hostname: string, port: number, origin: string][] = [
    ["harbor.test:443", "harbor.test", 443, "https://harbor.test"],
    ["Harbor.TEST:8443", "harbor.test", 8443, "https://harbor.test:8443"],
    ["harbor.test.:443", "harbor.test", 443, "https://harbor.test"],
    ["a_b-c.test:1", "a_b-c.test", 1, "https://a_b-c.test:1"],
    ["registry:5000", "registry", 5000, "https://registry:5000"],
    ["10.1.2.3:443", "10.1.2.3", 443, "https://10.1.2.3"],
    ["[2001:DB8:0:0::1]:443", "2001:db8::1", 443, "https://[2001:db8::1]"],
    ["[::ffff:127.0.0.1]:80", "::ffff:7f00:1", 80, "https://[::ffff:7f00:1]:80"],
  ];
  for (const [text, hostname, port, origin] of right) {
    it(`may be ${text}`, () => {
      expect(parseConnectTarget(text)).to.deep.equal({ hostname, port, origin, path: "" });
    });
  }

  const wrong: readonly string[] = [
    "",
    "harbor.test",
    "harbor.test:",
    ":443",
    "harbor.test:0",
    "harbor.test:65536",
    "harbor.test:443443",
    "harbor.test:0x1bb",
    "harbor.test:443/",
    "https://harbor.test:443",
    "user@harbor.test:443",
    "harbor..test:443",
    "-a.test:443",
    "a b:443",
    "a\\b:443",
    "a%2eb:443",
    // Other spellings of 127.0.0.1.
    "2130706433:443",
    "0x7f000001:443",
    "0x7f.1:443",
    "127.1:443",
    "0177.0.0.1:443",
    "127.0.0.1.:443",
    "x.127:443",
    "127.0.0.0x1:443",
    "1２７.0.0.1:443",
    "127。0。0。1:443",
    "::1:443",
    "[::1]",
    "[::1%25lo]:443",
    "[::1%lo]:443",
    "[127.0.0.1]:443",
    "[]:443",
    "[::1:443",
    `${"a".repeat(300)}.test:443`,
  ];
  for (const text of wrong) {
    it(`is not ${JSON.stringify(text)}`, () => {
      expect(parseConnectTarget(text)).to.equal(undefined);
    });
  }
});

describe("the absolute target of a request", () => {
  it("has a path, and a query, as they came", () => {
    expect(parseAbsoluteTarget("HTTP://Repo.test:8080//a/../b%2F?x=1?")).to.deep.equal({
      hostname: "repo.test",
      port: 8080,
      origin: "http://repo.test:8080",
      path: "//a/../b%2F?x=1?",
    });
    expect(parseAbsoluteTarget("http://repo.test")?.path).to.equal("/");
    expect(parseAbsoluteTarget("http://repo.test?x")?.path).to.equal("/?x");
  });

  for (const text of [
    "/v2/",
    "*",
    "https://repo.test/",
    "ftp://repo.test/",
    "http:///x",
    "http://u:p@repo.test/",
    "http://repo.test:99999/",
    "http://2130706433/",
    "http://repo.test/#x",
    "//repo.test/",
  ]) {
    it(`is not ${text}`, () => {
      expect(parseAbsoluteTarget(text)).to.equal(undefined);
    });
  }
});

describe("isHostOf(): a Host header", () => {
  it("is that of a target with the same host and port, and of no other", () => {
    const target = parseConnectTarget("harbor.test:443");
    const other = parseConnectTarget("harbor.test:8443");
    if (target === undefined || other === undefined) throw new Error();
    for (const host of ["harbor.test", "HARBOR.test:443", "harbor.test."]) {
      expect(isHostOf("https", host, target), host).to.equal(true);
      expect(isHostOf("https", host, other), host).to.equal(false);
    }
    for (const host of [
      "",
      "harbor.test:80",
      "evil.test",
      "harbor.test@evil.test",
      "harbor.test,x",
    ]) {
      expect(isHostOf("https", host, target), host).to.equal(false);
    }
    expect(isHostOf("https", "harbor.test:8443", other)).to.equal(true);
  });
});
