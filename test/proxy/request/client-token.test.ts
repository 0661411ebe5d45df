import { expect } from "chai";
import fc from "fast-check";
import { basicChallenge, clientToken } from "../../../src/proxy/request/client-token.ts";
import { parseChallenges } from "../../../src/upstream/challenge.ts";

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;

describe("a client's token", function () {
  this.timeout(10_000);
  const cases: readonly (readonly [string, string | undefined, string | undefined])[] = [
    ["the password of any user", basic("any:tok.en"), "tok.en"],
    ["the password of no user", basic(":token"), "token"],
    ["a password with colons", basic("user:a:b:"), "a:b:"],
    ["behind Bearer", "Bearer tok.en-_~+/==", "tok.en-_~+/=="],
    ["a scheme in any case, and spaces", `bAsIc   ${basic("a:b").slice(6)}  `, "b"],
    ["Bearer in any case", "BEARER x", "x"],
    ["no header", undefined, undefined],
    ["an empty header", "", undefined],
    ["no scheme", "token", undefined],
    ["another scheme", "Digest token", undefined],
    ["a scheme alone", "Basic", undefined],
    ["empty credentials, as containers/image sends them", basic(":"), undefined],
    ["a user alone", basic("user"), undefined],
    ["a user with a colon", basic("user:"), undefined],
    ["two credentials", `${basic("a:b")}, Bearer c`, undefined],
    ["two words", "Bearer a b", undefined],
    ["a parameter", 'Bearer token="a"', undefined],
    ["something that is no base64", "Basic a:b", undefined],
  ];
  for (const [name, header, token] of cases) {
    it(name, () => expect(clientToken(header)).to.equal(token));
  }

  it("is found whatever the user", () => {
    const user = fc.string().filter((text) => !text.includes(":"));
    const token = fc.stringMatching(/^[!-~]+$/);
    fc.assert(
      fc.property(user, token, (name, password) => {
        expect(clientToken(basic(`${name}:${password}`))).to.equal(password);
      }),
    );
  });

  it("is looked for in time in proportion to the header", () => {
    for (const unit of [" ", "a", "=", "a ", "= "]) {
      // Quadratic would take longer than a test may.
      expect(clientToken(`Bearer a${unit.repeat(300_000)}\n`)).to.equal(undefined);
    }
  });
});

it("the challenge is one, and Basic", () => {
  const [challenge, ...others] = parseChallenges(basicChallenge);
  expect(others).to.deep.equal([]);
  expect(challenge?.scheme).to.equal("basic");
});
