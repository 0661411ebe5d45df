import { expect } from "chai";
import { parseProxyCredential } from "../../../src/proxy/forward-mode/proxy-credential.ts";

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;
const harbor = { namespace: "team-a", name: "harbor" };
const ghcr = { namespace: "team-b", name: "ghcr" };

describe("the credential for the forward proxy", () => {
  const right: readonly [claim: string, header: string, connectors: object[], token: string][] = [
    ["names one connector", basic("team-a/harbor:t.o-k"), [harbor], "t.o-k"],
    ["names several", basic("team-a/harbor,team-b/ghcr:t"), [harbor, ghcr], "t"],
    ["may still be encoded", basic("team-a%2Fharbor,team-b%2Fghcr:t"), [harbor, ghcr], "t"],
    [
      "may be encoded, commas too",
      basic("team-a%2fharbor%2Cteam-b%2fghcr:t%2B%3D"),
      [harbor, ghcr],
      "t+=",
    ],
    ["may name one twice", basic("team-b/ghcr,team-b/ghcr:t"), [ghcr], "t"],
    ["may have colons in its token", basic("team-b/ghcr:a:b"), [ghcr], "a:b"],
    ["has its scheme in any case", basic("team-b/ghcr:t").replace("Basic", "BASIC "), [ghcr], "t"],
  ];
  for (const [claim, header, connectors, token] of right) {
    it(claim, () => {
      expect(parseProxyCredential(header)).to.deep.equal({
        ok: true,
        value: { connectors, token },
      });
    });
  }

  const wrong: readonly [claim: string, header: string | undefined][] = [
    ["nothing", undefined],
    ["Bearer", "Bearer abc"],
    ["another scheme", "Digest abc"],
    ["no base64", "Basic !!!"],
    ["no colon", basic("team-a/harbor")],
    ["no token", basic("team-a/harbor:")],
    ["no user", basic(":t")],
    ["a name without namespace", basic("harbor:t")],
    ["a path", basic("team-a/harbor/x:t")],
    ["an odd name", basic("team-a/Harbor:t")],
    ["an empty entry", basic("team-a/harbor,:t")],
    ["a broken escape", basic("team-a%2harbor:t")],
    ["a newline", basic("team-a/harbor\r\nX: y:t")],
    ["too many", basic(`${Array.from({ length: 65 }, (_, index) => `a/b${index}`)}:t`)],
  ];
  for (const [claim, header] of wrong) {
    it(`is refused where there is ${claim}, and not repeated`, () => {
      const answer = parseProxyCredential(header);
      expect(answer.ok).to.equal(false);
      expect((answer as { reason: string }).reason)
        .to.match(/this proxy.*\.env/)
        .and.not.include("harbor/x");
    });
  }
});
