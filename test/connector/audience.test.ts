import { expect } from "chai";
import { parseAllowedAudiences } from "../../src/connector/audience.ts";

const read = (text: string) => {
  const parsed = parseAllowedAudiences(text, "OIDC_AUDIENCES");
  return parsed.ok ? parsed.value : parsed.problems.map(({ found }) => found);
};

describe("the operator's audiences", () => {
  it("are pairs of an audience and a host", () => {
    expect(read("")).to.deep.equal([]);
    expect(
      read("ours=artifactory.example.com, https://sso.test/a=registry.corp:8443,"),
    ).to.deep.equal([
      { audience: "ours", host: "artifactory.example.com" },
      { audience: "https://sso.test/a", host: "registry.corp:8443" },
    ]);
  });

  for (const text of [
    "ours",
    "=a.test",
    "ours=",
    "ours=https://a.test",
    "ours=a.test/b",
    "a b=c.test",
    "ours=A.test",
  ]) {
    it(`are not ${JSON.stringify(text)}`, () => {
      expect(read(`good=a.test,${text}`)).to.deep.equal([JSON.stringify(text)]);
    });
  }

  for (const audience of [
    "sts.amazonaws.com",
    "api://AzureADTokenExchange",
    "//iam.googleapis.com/projects/1",
    "p.svc.id.goog",
    "https://kubernetes.default.svc.cluster.local",
    "HTTPS://KUBERNETES.DEFAULT.SVC/",
  ]) {
    it(`are never ${audience}`, () => {
      expect(read(`${audience}=a.test`)).to.deep.equal([JSON.stringify(`${audience}=a.test`)]);
    });
  }
});
