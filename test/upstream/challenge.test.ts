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
    [
      "a token68, which is passed over",
      'NTLM TlRMTVNTUAAC=, Bearer realm="y"',
      [
        ["ntlm", {}],
        ["bearer", { realm: "y" }],
      ],
    ],
    [
      "a token68 with every letter that it may have, before a scheme alone",
      'Negotiate  aZ09-._~+/== \t, Basic , Bearer realm="y"',
      [
        ["negotiate", {}],
        ["basic", {}],
        ["bearer", { realm: "y" }],
      ],
    ],
    [
      "a token68 without padding, at the end",
      'Bearer realm="y", Negotiate abc',
      [
        ["bearer", { realm: "y" }],
        ["negotiate", {}],
      ],
    ],
    [
      "whitespace around the equals sign",
      'Bearer realm = "y" ,service\t=\tz',
      [["bearer", { realm: "y", service: "z" }]],
    ],
    [
      "UTF-8",
      Buffer.from('Bearer realm="y",service="Реестр"').toString("latin1"),
      [["bearer", { realm: "y", service: "Реестр" }]],
    ],
    [
      "latin1, which is no UTF-8",
      'Bearer realm="y",service="caf\xe9"',
      [["bearer", { realm: "y", service: "caf\xe9" }]],
    ],
    [
      "letters that a client has decoded already",
      'Bearer realm="y",service="Реестр é"',
      [["bearer", { realm: "y", service: "Реестр é" }]],
    ],
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

  it("read back what was written by the rules of RFC 9110, in any of the ways that it allows", () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9]{0,7}$/);
    const space = fc.constantFrom("", " ", "\t", "  ");
    const text = fc.string({ unit: fc.constantFrom(...'aZ09-.:/?&=, \t"\\äРü') });
    const value = fc.oneof(
      text.map((wanted) => ({
        wanted,
        written: `"${wanted.replace(/["\\]/g, "\\$&")}"`,
      })),
      // A quoted-pair may stand for any character.
      text.map((wanted) => ({ wanted, written: `"${wanted.replace(/[^äРü]/g, "\\$&")}"` })),
      fc.stringMatching(/^[a-z0-9.!#$%&'*+^_`|~-]{1,9}$/).map((wanted) => ({
        wanted,
        written: wanted,
      })),
    );
    const params = fc.dictionary(name, fc.tuple(value, space, space), { maxKeys: 4 });
    const rest = fc.oneof(
      params.map((entries) => ({ entries, token68: "" })),
      fc
        .stringMatching(/^[A-Za-z0-9._~+/-]{1,9}={0,2}$/)
        .map((token68) => ({ entries: {} as never, token68 })),
    );
    const comma = fc.constantFrom(",", ", ", " ,", "\t,\t", ",,", " , , ");
    const challenge = fc.tuple(name, rest, comma);
    const write = ([scheme, { entries, token68 }, separator]: Challenge): string => {
      const list = Object.entries(entries).map(
        ([key, [{ written }, before, after]]) => `${key}${before}=${after}${written}`,
      );
      return `${scheme} ${token68}${list.join(separator)}`;
    };
    type Challenge = typeof challenge extends fc.Arbitrary<infer T> ? T : never;
    fc.assert(
      fc.property(fc.array(challenge), comma, fc.boolean(), (wanted, separator, areSeveral) => {
        const written = wanted.map(write);
        // As HTTP clients hand bytes over.
        const bytes = (one: string): string => Buffer.from(one).toString("latin1");
        const found = parseChallenges(
          areSeveral ? written.map(bytes) : bytes(written.join(separator)),
        ).map(({ scheme, params: read }) => [scheme, Object.fromEntries(read)]);
        expect(found).to.deep.equal(
          wanted.map(([scheme, { entries }]) => [
            scheme,
            Object.fromEntries(
              Object.entries(entries as object).map(([key, [{ wanted: one }]]) => [key, one]),
            ),
          ]),
        );
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
    ["token68", "a a="],
    ["padding", "="],
    ["letters beyond ASCII", "\xff"],
    ["letters beyond latin1", "\xffЯ"],
  ] as const) {
    it(`take time in proportion to their length: ${name}`, () => {
      // Quadratic would take longer than a test may.
      parseChallenges(`Bearer realm="${unit.repeat(300_000)}`);
      parseChallenges(unit.repeat(300_000));
    });
  }
});
