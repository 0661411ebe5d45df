import { randomBytes } from "node:crypto";
import { expect } from "chai";
import { createAuthority } from "../../src/certificate-authority.ts";
import {
  openingKeys,
  type ProxyKeys,
  parseProxyKeys,
  proxyKeysData,
  trustedBundle,
} from "../../src/connector/proxy-keys.ts";

describe("the proxies' keys", () => {
  let steady: ProxyKeys;
  let introduced: ProxyKeys;
  let promoted: ProxyKeys;

  before(async () => {
    const make = async (name: string) => ({
      authority: await createAuthority(name, new Date()),
      sealKey: randomBytes(32),
    });
    const [one, two] = [await make("one"), await make("two")];
    steady = { ...one, next: undefined, previous: undefined };
    introduced = { ...steady, next: two };
    const previous = { certificate: one.authority.certificate, sealKey: one.sealKey };
    promoted = { ...two, next: undefined, previous };
  });

  const dataOf = (keys: ProxyKeys): Record<string, string> => {
    const entries = Object.entries(proxyKeysData(keys)).filter(([, value]) => value !== undefined);
    return Object.fromEntries(entries) as Record<string, string>;
  };
  const problemsOf = (data: unknown): readonly string[] => {
    const parsed = parseProxyKeys({ data });
    return parsed.ok
      ? []
      : parsed.problems.map(({ path, found, wanted }) => `${path}: ${found}, ${wanted}`);
  };

  it("read back from a Secret as they were written", () => {
    for (const keys of [steady, introduced, promoted]) {
      expect(parseProxyKeys({ data: dataOf(keys) })).to.deep.equal({ ok: true, value: keys });
    }
    expect(Object.keys(dataOf(steady))).to.deep.equal(["ca.crt", "ca.key", "seal.key"]);
  });

  it("are trusted, and open, at every step of a rotation; the first is the one in use", () => {
    const [one, two] = [steady.authority.certificate, promoted.authority.certificate];
    expect(trustedBundle(steady)).to.equal(one);
    expect(trustedBundle(introduced)).to.equal(one + two);
    expect(trustedBundle(promoted)).to.equal(two + one);
    expect(openingKeys(introduced)).to.deep.equal([steady.sealKey, promoted.sealKey]);
    expect(openingKeys(promoted)).to.deep.equal([promoted.sealKey, steady.sealKey]);
  });

  it("are not taken where something is wrong, and what it is shows without a key", () => {
    const whole = dataOf(introduced);
    const noise = Buffer.from("a secret that is no key").toString("base64");
    const cases: readonly (readonly [change: object, problem: string])[] = [
      [{ "ca.crt": undefined }, "ca.crt: nothing, a certificate in PEM"],
      [{ "ca.key": noise }, "ca.key: something else, a private key in PEM"],
      [{ "ca.crt": 1 }, "ca.crt: nothing, a certificate in PEM"],
      [
        { "ca.key": whole["next-ca.key"] },
        "ca.key: the key of another certificate, the private key of ca.crt",
      ],
      [{ "next-ca.key": undefined }, "next-ca.key: nothing, a private key in PEM"],
      [{ "next-ca.crt": undefined }, "next-ca.crt: nothing, a certificate in PEM"],
      [{ "next-seal.key": noise }, "next-seal.key: 23 bytes, 32 bytes"],
      [{ "seal.key": undefined }, "seal.key: nothing, 32 bytes"],
      [{ "previous-ca.crt": noise }, "previous-ca.crt: something else, a certificate in PEM"],
    ];
    for (const [change, problem] of cases) {
      const problems = problemsOf({ ...whole, ...change });
      expect(problems).to.include(problem);
      expect(problems.join()).not.to.contain(noise).and.not.contain("a secret");
    }
    for (const secret of [undefined, "x", { data: null }, { data: [] }]) {
      expect(parseProxyKeys(secret).ok).to.equal(false);
    }
  });
});
