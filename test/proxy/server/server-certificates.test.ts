import { X509Certificate } from "node:crypto";
import { expect } from "chai";
import {
  createAuthority,
  createLeafIssuer,
  type IssueLeaf,
  leafLifetimeMs,
} from "../../../src/certificate-authority.ts";
import {
  createServerCertificates,
  type ServerCertificates,
} from "../../../src/proxy/server/server-certificates.ts";

describe("the proxy's server certificates", function () {
  this.timeout(10_000);
  let issueLeaf: IssueLeaf;
  let issued: string[];
  let now: number;
  let certificates: ServerCertificates;
  let isBroken: boolean;

  beforeEach(async () => {
    now = Date.now();
    issued = [];
    isBroken = false;
    const issue = await createLeafIssuer(await createAuthority("test", new Date(now)));
    issueLeaf = (name, when) => {
      issued.push(name);
      return isBroken ? Promise.reject(new Error("no key")) : issue(name, when);
    };
    certificates = createServerCertificates({
      leafIssuer: () => issueLeaf,
      servesName: (name) => name.endsWith(".test"),
      now: () => now,
    });
  });

  it("are made once for a name, however it is written, until half of their life is over", async () => {
    const first = await certificates.contextFor("a.test", "10.0.0.1");
    expect(await certificates.contextFor("A.Test", "10.0.0.1")).to.equal(first);
    now += leafLifetimeMs / 2 - 1;
    expect(await certificates.contextFor("a.test", "10.0.0.1")).to.equal(first);
    now += 1;
    const second = await certificates.contextFor("a.test", "10.0.0.1");
    expect(second).to.not.equal(first);
    expect(await certificates.contextFor("a.test", "10.0.0.1")).to.equal(second);
    expect(issued).to.deep.equal(["a.test", "a.test"]);
  });

  it("are made once for many who ask at a time", async () => {
    const contexts = await Promise.all(
      [1, 2, 3].map(() => certificates.contextFor("a.test", "10.0.0.1")),
    );
    expect(new Set(contexts).size).to.equal(1);
    expect(issued).to.deep.equal(["a.test"]);
  });

  it("are not made for names that the proxy does not answer under", async () => {
    expect(await certificates.contextFor("registry-1.docker.io", "10.0.0.1")).to.equal(undefined);
    expect(issued).to.deep.equal([]);
  });

  it("are made for the host that is listened on, each time anew", async () => {
    const { certificate } = await certificates.issueFor("127.0.0.1");
    expect(new X509Certificate(certificate).subjectAltName).to.equal("IP Address:127.0.0.1");
    await certificates.issueFor("127.0.0.1");
    expect(issued).to.have.length(2);
  });

  it("are tried again where they could not be made", async () => {
    isBroken = true;
    const failed = await certificates
      .contextFor("a.test", "10.0.0.1")
      .catch((error: Error) => error.message);
    expect(failed).to.equal("no key");
    isBroken = false;
    expect(await certificates.contextFor("a.test", "10.0.0.1")).to.be.an("object");
  });

  it("are made anew by another authority", async () => {
    const first = await certificates.contextFor("a.test", "10.0.0.1");
    const rotated = await createLeafIssuer(await createAuthority("next", new Date(now)));
    issueLeaf = (name, when) => {
      issued.push(`next ${name}`);
      return rotated(name, when);
    };
    expect(await certificates.contextFor("a.test", "10.0.0.1")).to.not.equal(first);
    await certificates.issueFor("own.test");
    expect(issued).to.deep.equal(["a.test", "next a.test", "next own.test"]);
  });

  it("are kept for a thousand names", async () => {
    const leaf = await certificates.issueFor("x.test");
    issueLeaf = async (name) => {
      issued.push(name);
      return leaf;
    };
    for (let index = 0; index < 1001; index++)
      await certificates.contextFor(`h${index}.test`, `10.0.${index % 8}.1`);
    issued.length = 0;
    await certificates.contextFor("h1000.test", "10.0.0.1");
    expect(issued).to.deep.equal([]);
    await certificates.contextFor("h0.test", "10.0.0.1");
    expect(issued).to.deep.equal(["h0.test"]);
  });

  it("are kept for an asker to a bound, and push out no other asker's", async () => {
    const leaf = await certificates.issueFor("x.test");
    let underWay = 0;
    let mostUnderWay = 0;
    issueLeaf = async (name) => {
      issued.push(name);
      underWay += 1;
      mostUnderWay = Math.max(mostUnderWay, underWay);
      await new Promise((resolve) => setImmediate(resolve));
      underWay -= 1;
      return leaf;
    };
    await certificates.contextFor("neighbour.test", "10.0.0.2");
    const names = [...Array(2_000).keys()].map((index) => `h${index}.test`);
    await Promise.all(names.map((name) => certificates.contextFor(name, "10.0.0.1")));
    expect(mostUnderWay).to.equal(1);
    issued.length = 0;
    await certificates.contextFor("neighbour.test", "10.0.0.1");
    await certificates.contextFor("h1999.test", "10.0.0.1");
    expect(issued).to.deep.equal([]);
    await certificates.contextFor("h1000.test", "10.0.0.1");
    expect(issued).to.deep.equal(["h1000.test"]);
  });
});
