import { expect } from "chai";
import { isWithoutProxy, parseNoProxy } from "../../src/connector/no-proxy.ts";

describe("the hosts that are reached without a proxy", () => {
  const isDirect = (list: string, hostname: string, port = 443): boolean => {
    const rules = parseNoProxy(list, "EGRESS_NO_PROXY");
    expect(rules.ok, list).to.equal(true);
    return rules.ok && isWithoutProxy(rules.value, hostname, port);
  };

  it("are those of the list, as Go's programs read it", () => {
    const cases: readonly (readonly [list: string, direct: string[], proxied: string[]])[] = [
      ["", [], ["harbor.corp", "10.1.2.3", "2001:db8::1"]],
      ["*", ["harbor.corp", "10.1.2.3", "2001:db8::1"], []],
      ["corp", ["corp", "harbor.corp", "a.b.corp"], ["mycorp", "corp.example.com"]],
      ["harbor.corp", ["harbor.corp", "a.harbor.corp"], ["corp", "xharbor.corp"]],
      [".corp", ["harbor.corp", "a.b.corp"], ["corp", "mycorp"]],
      ["*.corp", ["harbor.corp", "a.b.corp"], ["corp", "mycorp"]],
      ["HARBOR.Corp.", ["harbor.corp"], ["corp"]],
      ["10.1.2.3", ["10.1.2.3", "::ffff:10.1.2.3"], ["10.1.2.4", "x.10.1.2.3.nip.io"]],
      ["10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "harbor.corp", "::a01:203"]],
      ["2001:db8::/32", ["2001:db8::1"], ["2001:db9::1", "10.1.2.3"]],
      ["2001:db8:0::1", ["2001:db8::1"], ["2001:db8::2"]],
      ["[2001:db8::1]", ["2001:db8::1"], ["2001:db8::2"]],
      ["a.test, b.test c.test,,", ["a.test", "b.test", "c.test"], ["d.test"]],
      ["foo_bar.corp", ["foo_bar.corp"], ["foo-bar.corp"]],
    ];
    for (const [list, direct, proxied] of cases) {
      for (const host of direct) expect(isDirect(list, host), `${list}: ${host}`).to.equal(true);
      for (const host of proxied) expect(isDirect(list, host), `${list}: ${host}`).to.equal(false);
    }
  });

  it("are those of one port, where an entry has one", () => {
    const ports: readonly (readonly [list: string, hostname: string, port: number])[] = [
      ["harbor.corp:8443", "harbor.corp", 8443],
      ["harbor.corp:8443", "a.harbor.corp", 8443],
      [".corp:8443", "harbor.corp", 8443],
      ["10.1.2.3:8443", "10.1.2.3", 8443],
      ["[2001:db8::1]:8443", "2001:db8::1", 8443],
    ];
    for (const [list, hostname, port] of ports) {
      expect(isDirect(list, hostname, port), list).to.equal(true);
      expect(isDirect(list, hostname, 443), list).to.equal(false);
    }
  });

  it("are always those of the machine itself, which no proxy could reach", () => {
    for (const host of ["localhost", "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]) {
      expect(isDirect("", host), host).to.equal(true);
    }
    for (const host of ["localhost.example.com", "mylocalhost", "128.0.0.1"]) {
      expect(isDirect("", host), host).to.equal(false);
    }
  });

  it("have to be written so that they can be read, since an entry that is passed over would go unnoticed", () => {
    const bad = ["http://harbor.corp", "harbor corp!", "10.0.0.0/33", "10.0.0.0/8:443", "a:0"];
    bad.push("a:65536", "a:b", "har*bor.corp", "*.10.0.0.1", "10.0/8", "user@harbor.corp", "1.2.3");
    for (const entry of bad) {
      const rules = parseNoProxy(`ok.test,${entry}`, "EGRESS_NO_PROXY");
      expect(rules.ok, entry).to.equal(false);
      const [problem] = rules.ok ? [] : rules.problems;
      expect(problem).to.include({ path: "EGRESS_NO_PROXY" });
      expect(problem?.wanted).to.include("harbor.corp");
    }
  });
});
