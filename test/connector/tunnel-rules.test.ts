import { expect } from "chai";
import { parseTunnelRules } from "../../src/connector/tunnel-rules.ts";

const none = { any: false, hosts: [], domains: [], networks: [], neverNetworks: [] };
const anyPort = (host: string) => ({ host, port: undefined });

describe("tunnel rules: the setting of where clients may go", () => {
  const right: readonly [text: string, rules: object][] = [
    ["tunnel", { any: true }],
    ["refuse", {}],
    ["github.com", { hosts: [anyPort("github.com")] }],
    ["GitHub.com.:443", { hosts: [{ host: "github.com", port: 443 }] }],
    ["*.example.com:8443", { domains: [{ host: "example.com", port: 8443 }] }],
    ["tunnel, git.internal", { any: true, hosts: [anyPort("git.internal")] }],
    ["localhost:3000", { hosts: [{ host: "localhost", port: 3000 }] }],
    ["10.1.2.3:80", { hosts: [{ host: "10.1.2.3", port: 80 }] }],
    ["[2001:DB8:0::1]:80", { hosts: [{ host: "2001:db8::1", port: 80 }] }],
    ["10.1.0.0/16,fd00::/8", { networks: ["10.1.0.0/16", "fd00::/8"] }],
    ["tunnel,!203.0.113.0/24", { any: true, neverNetworks: ["203.0.113.0/24"] }],
  ];
  for (const [text, rules] of right) {
    it(`may be ${text}`, () => {
      const read = parseTunnelRules(text, "TUNNEL");
      expect(read).to.deep.equal({ ok: true, value: { ...none, ...rules } });
    });
  }

  for (const text of [
    "",
    "tunnel,",
    "refuse,github.com",
    "https://github.com",
    "github.com/",
    "a b",
    "github.com:0",
    "github.com:65536",
    "github.com:http",
    "user@github.com",
    "*",
    "a*.com",
    "*.10.1.2.3",
    "*.[::1]",
    "[10.1.2.3]",
    "::1",
    "[::1%lo]",
    "10.0.0.0/33",
    "10.0.0/8",
    "!x",
    // Spellings of 127.0.0.1 that a resolver would take for an address.
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "ex..com",
    "-a.com",
    "a.com-",
    "a/b",
  ]) {
    it(`is not ${JSON.stringify(text)}, and says what would be`, () => {
      const read = parseTunnelRules(text, "--tunnel");
      expect(read.ok).to.equal(false);
      const [problem] = read.ok ? [] : read.problems;
      expect(problem?.path).to.equal("--tunnel");
      expect(problem?.wanted).to.match(/"tunnel" for every public host|"refuse" alone/);
    });
  }
});
