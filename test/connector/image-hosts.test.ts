import { expect } from "chai";
import { isImageHost, parseImageHosts } from "../../src/connector/image-hosts.ts";

const hostsOf = (text: string): readonly string[] => {
  const parsed = parseImageHosts(text, "NODE_IMAGE_HOSTS");
  return parsed.ok ? [...parsed.value] : expect.fail(JSON.stringify(parsed.problems));
};

describe("the registries whose images nodes pull through the proxy", () => {
  it("are hosts as image names have them", () => {
    expect(hostsOf("")).to.deep.equal([]);
    expect(hostsOf(" Harbor.example.com:8443 ,, index.docker.io,*.example.com")).to.deep.equal([
      "harbor.example.com:8443",
      "docker.io",
      "*.example.com",
    ]);
    expect(hostsOf("harbor.example.com:443,[::1]:5000,localhost:5000")).to.deep.equal([
      "harbor.example.com",
      "[::1]:5000",
      "localhost:5000",
    ]);
  });

  for (const text of [
    "https://harbor.example.com",
    "harbor.example.com/app",
    "harbor.*.example.com",
    "*",
    "*.com",
    "*.*.example.com",
    "*.10.0.0.1",
    "*harbor.example.com",
    "a@harbor.example.com",
    "harbor.example.com:0",
    'harbor"example.com',
  ]) {
    it(`are not ${text}`, () => {
      const parsed = parseImageHosts(`docker.io,${text}`, "NODE_IMAGE_HOSTS");
      if (parsed.ok) return expect.fail([...parsed.value].join());
      expect(parsed.problems).to.have.length(1);
      expect(parsed.problems[0]).to.deep.include({ path: "NODE_IMAGE_HOSTS" });
      return undefined;
    });
  }

  it("are two hundred at most", () => {
    const hosts = Array.from({ length: 201 }, (_, number) => `r${number}.example.com`);
    expect(hostsOf(hosts.slice(1).join())).to.have.length(200);
    const parsed = parseImageHosts(hosts.join(), "NODE_IMAGE_HOSTS");
    expect(parsed)
      .to.have.property("problems")
      .that.deep.equals([{ path: "NODE_IMAGE_HOSTS", found: "201 hosts", wanted: "at most 200" }]);
  });

  it("are matched as the kubelet does it: one label for the star, and the very port", () => {
    const hosts = new Set(hostsOf("harbor.example.com,*.corp.example.com:8443,*.example.org"));
    const matches = (host: string): boolean => isImageHost(hosts, host);
    expect(matches("harbor.example.com")).to.equal(true);
    expect(matches("a.corp.example.com:8443")).to.equal(true);
    expect(matches("a.example.org")).to.equal(true);
    for (const other of [
      "example.com",
      "a.harbor.example.com",
      "harbor.example.com:8443",
      "a.corp.example.com",
      "corp.example.com:8443",
      "a.b.example.org",
      "example.org",
      ".example.org.evil.test",
      "localhost",
    ]) {
      expect(matches(other), other).to.equal(false);
    }
  });
});
