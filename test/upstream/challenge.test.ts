import { expect } from "chai";
import fc from "fast-check";
import { parseChallenges } from "../../src/upstream/challenge.ts";

describe("parseChallenges(): challenges of a registry", function () {
  this.timeout(10_000);
  const cases: readonly (readonly [
    string,
    string | readonly string[] | undefined,
    readonly (readonly [string, Readonly<Record<string, string>>])[],
  ])[] = [
    ["no header", undefined, []],
    ["an empty header", "", []],
    ["a scheme alone", "Negotiate", [["negotiate", {}]]],
    [
      "RFC 9110, section 11.6.1",
      'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
      [
        ["basic", { realm: "simple" }],
        ["newauth", { realm: "apps", type: "1", title: 'Login to "apps"' }],
      ],
    ],
    [
      "a registry's, with commas in a quoted text",
      'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull,push"',
      [
        [
          "bearer",
          {
            realm: "https://auth.test/token",
            service: "registry.test",
            scope: "repository:a/b:pull,push",
          },
        ],
      ],
    ],
    [
      "several headers",
      ['Basic realm="x"', 'Bearer realm="y"'],
      [
        ["basic", { realm: "x" }],
        ["bearer", { realm: "y" }],
      ],
    ],
    [
      "a scheme without parameters before another",
      'Negotiate, Bearer realm="y"',
      [
        ["negotiate", {}],
        ["bearer", { realm: "y" }],
      ],
    ],
    ["a token68, which is passed over", 'NTLM TlRMTVNTUAAC=, Bearer realm="y"', [["ntlm", {}]]],
    [
      "upper case, spaces and empty list elements",
      ' ,, BEARER   REALM="y" , , Service = x',
      [["bearer", { realm: "y", service: "x" }]],
    ],
    ["unquoted values", "Bearer realm=y,service=z", [["bearer", { realm: "y", service: "z" }]]],
    ["an empty text", 'Bearer realm=""', [["bearer", { realm: "" }]]],
    ["a text without an end", 'Basic, Bearer realm="y,service="z"', undefinedEnd()],
    ["a text that ends in a backslash", 'Bearer realm="y\\"', [["bearer", {}]]],
  ];

  for (const [name, header, expected] of cases) {
    it(name, () => {
      const found = parseChallenges(header).map(({ scheme, params }) => [
        scheme,
        Object.fromEntries(params),
      ]);
      expect(found).to.deep.equal(expected);
    });
  }

  function undefinedEnd(): readonly (readonly [string, Readonly<Record<string, string>>])[] {
    return [
      ["basic", {}],
      ["bearer", { realm: "y,service=" }],
      ["z", {}],
    ];
  }

  it("never throw, whatever is sent", () => {
    const pieces = fc.constantFrom("Bearer", "Basic", " ", ",", "=", '"', "\\", "realm", "\t", "ä");
    fc.assert(
      fc.property(fc.array(fc.oneof(pieces, fc.string())), (list) => {
        for (const { scheme } of parseChallenges(list.join(""))) {
          expect(scheme).to.match(/^[!-~]+$/);
        }
      }),
    );
  });

  it("read back what was written by the rules", () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9]{0,7}$/);
    const params = fc.dictionary(name, fc.string({ unit: "grapheme-ascii" }));
    fc.assert(
      fc.property(fc.array(fc.tuple(name, params)), (wanted) => {
        const header = wanted
          .map(([scheme, values]) => {
            const list = Object.entries(values).map(
              ([key, value]) => `${key}="${value.replace(/["\\]/g, "\\$&")}"`,
            );
            return `${scheme} ${list.join(", ")}`;
          })
          .join(", ");
        const found = parseChallenges(header).map(({ scheme, params: read }) => [
          scheme,
          Object.fromEntries(read),
        ]);
        expect(found).to.deep.equal(wanted.map(([scheme, values]) => [scheme, { ...values }]));
      }),
    );
  });

  for (const [name, unit] of [
    ["quotes without an end", 'a="'],
    ["backslashes", "\\"],
    ["backslashes in a text", 'a="\\'],
    ["separators", " ,"],
    ["parameters", 'a="b",'],
    ["tokens", "a"],
  ] as const) {
    it(`take time in proportion to their length: ${name}`, () => {
      // Quadratic would take longer than a test may.
      parseChallenges(`Bearer realm="${unit.repeat(300_000)}`);
      parseChallenges(unit.repeat(300_000));
    });
  }
});
