import { expect } from "chai";
import fc from "fast-check";
import { isDigest, isReference, isRepository } from "../../src/connector/repository.ts";

const sha256 = `sha256:${"0123456789abcdef".repeat(4)}`;

describe("the name of a repository", () => {
  const cases: readonly [claim: string, name: string, right: boolean][] = [
    ["has one component", "busybox", true],
    ["has several components", "team/app/web", true],
    ["has digits", "0/1", true],
    ["has one dot between letters", "org/repo.git", true],
    ["has one underscore or two", "a_b__c", true],
    ["has any number of dashes", "a--b---c", true],
    ["has the names of endpoints as components", "blobs/manifests/uploads", true],
    ["has 255 characters at most", "a".repeat(255), true],
    ["has no more than 255 characters", "a".repeat(256), false],
    ["is not empty", "", false],
    ["has no slash in front", "/app", false],
    ["has no slash behind", "app/", false],
    ["has no empty component", "a//b", false],
    ["has no . as a component", "a/./b", false],
    ["has no .. as a component", "a/../b", false],
    ["has no two dots in a row", "a..b", false],
    ["has no three underscores in a row", "a___b", false],
    ["has no two kinds of separators in a row", "a.-b", false],
    ["has no separator in front of a component", "a/-b", false],
    ["has no separator behind a component", "a_/b", false],
    ["has no capitals", "App", false],
    ["has no percent sign", "a%2fb", false],
    ["has no backslash", "a\\b", false],
    ["has no tag", "app:1", false],
    ["has no newline behind it", "app\n", false],
    ["has no space", "a b", false],
  ];
  for (const [claim, name, right] of cases) {
    it(claim, () => {
      expect(isRepository(name)).to.equal(right);
    });
  }

  /** The grammar of the distribution specification, written down as a generator. */
  const component = fc
    .tuple(
      fc.stringMatching(/^[a-z0-9]{1,6}$/),
      fc.array(fc.stringMatching(/^(\.|_|__|-{1,3})[a-z0-9]{1,6}$/), { maxLength: 3 }),
    )
    .map(([first, others]) => first + others.join(""));

  it("is whatever the specification's grammar makes", () => {
    const name = fc.array(component, { minLength: 1, maxLength: 5 }).map((all) => all.join("/"));
    fc.assert(
      fc.property(name, (written) => {
        expect(isRepository(written)).to.equal(true);
      }),
    );
  }).timeout(20_000);

  it("reads in a path as it stands: no %, no .., no //, no slash at an end", () => {
    const sign = fc.constantFrom(..."ab0._-/%\\A: \n");
    fc.assert(
      fc.property(fc.array(sign, { maxLength: 12 }), (signs) => {
        const name = signs.join("");
        if (!isRepository(name)) return;
        expect(name).not.to.match(/%|\.\.|\/\/|^\/|\/$|[^a-z0-9._/-]/);
        expect(new URL(`/v2/${name}/tags/list`, "http://r").pathname).to.equal(
          `/v2/${name}/tags/list`,
        );
      }),
      { numRuns: 2000 },
    );
  }).timeout(20_000);
});

describe("a reference to a manifest", () => {
  const cases: readonly [claim: string, reference: string, right: boolean][] = [
    ["is a tag", "v1.2.3_rc-1", true],
    ["is a tag with capitals", "Latest", true],
    ["is a tag that begins with an underscore", "_1", true],
    ["is a tag of 128 characters", "a".repeat(128), true],
    ["is no tag of 129 characters", "a".repeat(129), false],
    ["is a sha256 digest", sha256, true],
    ["is a digest of several algorithms", "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDe", true],
    ["is not empty", "", false],
    ["is not .", ".", false],
    ["is not ..", "..", false],
    ["is a tag with two dots in it, which no path reads as a step up", "1..2", true],
    ["does not begin with a dash", "-1", false],
    ["has no slash", "a/b", false],
    ["has no percent sign", "a%2f", false],
    ["has no newline behind it", "latest\n", false],
  ];
  for (const [claim, reference, right] of cases) {
    it(claim, () => {
      expect(isReference(reference)).to.equal(right);
    });
  }
});

describe("a digest", () => {
  const cases: readonly [claim: string, digest: string, right: boolean][] = [
    ["is an algorithm and an encoded value", sha256, true],
    ["may use base64url with padding", "sha512:abc_-DEF==", true],
    ["has 300 characters at most", `sha256:${"a".repeat(293)}`, true],
    ["has no more than 300 characters", `sha256:${"a".repeat(294)}`, false],
    ["has an algorithm", ":abc", false],
    ["has a value", "sha256:", false],
    ["has one colon", "sha256:abc:def", false],
    ["has no capitals in the algorithm", "SHA256:abc", false],
    ["has no slash", "sha256:ab/cd", false],
    ["has no separator at the end of the algorithm", "sha256+:abc", false],
  ];
  for (const [claim, digest, right] of cases) {
    it(claim, () => {
      expect(isDigest(digest)).to.equal(right);
    });
  }
});

describe("names of repositories, references and digests that are long and hostile", () => {
  const long = 1_000_000;
  const hostile: readonly [shape: string, text: string][] = [
    ["letters", `${"a".repeat(long)}!`],
    ["components", `${"a/".repeat(long)}!`],
    ["separators", `${"a-".repeat(long)}!`],
    ["dashes", `a${"-".repeat(long)}!`],
    ["algorithms", `${"a+".repeat(long)}:!`],
  ];
  for (const [shape, text] of hostile) {
    it(`of ${shape} are refused before the time limit`, () => {
      expect([isRepository(text), isReference(text), isDigest(text)]).to.deep.equal([
        false,
        false,
        false,
      ]);
    });
  }

  it("are refused as well where they are just short enough to be looked at", () => {
    for (const unit of ["a", "a/", "a-", "a.", "a__", "-", "/"]) {
      const text = `a${unit.repeat(260)}`.slice(0, 254);
      expect(isRepository(`${text}!`), unit).to.equal(false);
      expect(isDigest(`${text}!`), unit).to.equal(false);
    }
  });
});
