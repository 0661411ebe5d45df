import { expect } from "chai";
import fc from "fast-check";
import { createAuthority } from "../../src/certificate-authority.ts";
import { parseCertificates, parseCredential } from "../../src/connector/credential.ts";
import { describeProblems } from "../../src/connector/problem.ts";

const type = "cpaas.io/distribution-registry-token";
const base64 = (value: string | Uint8Array): string => Buffer.from(value).toString("base64");

/** The credential, or all problems in one sentence. */
const read = (secret: unknown) => {
  const credential = parseCredential(secret);
  return credential.ok ? credential.value : describeProblems(credential.problems);
};

describe("a credential", () => {
  const robot = { username: "robot$demo", password: 'pä:ss "w\\ord' };
  const encoded = { username: base64(robot.username), password: base64(robot.password) };
  const accepted: readonly [claim: string, secret: unknown][] = [
    ["is read from stringData", { type, stringData: robot }],
    ["is read from data, in base64", { type, data: encoded }],
    [
      "is read from the Secret type that Kubernetes has",
      {
        type: "kubernetes.io/basic-auth",
        data: encoded,
      },
    ],
    [
      "is read from stringData where both have it",
      {
        type,
        stringData: robot,
        data: { username: base64("old"), password: "not base64 at all" },
      },
    ],
    [
      "may be split over both",
      {
        type,
        stringData: { username: robot.username },
        data: { password: encoded.password },
      },
    ],
    [
      "is read from data where stringData says null",
      { type, stringData: { username: null, password: null }, data: encoded },
    ],
    [
      "may have base64 that is folded over lines",
      {
        type,
        data: { ...encoded, password: encoded.password.replace(/(.{4})/g, "$1\n") },
      },
    ],
    [
      "may stand beside keys that nobody knows",
      {
        apiVersion: "v1",
        kind: "Secret",
        metadata: {},
        type,
        data: { ...encoded, email: 7 },
      },
    ],
  ];
  for (const [claim, secret] of accepted) {
    it(claim, () => {
      expect(read(secret)).to.deep.equal(robot);
    });
  }

  const right = { username: "bob", password: "pw" };
  const line = "wanted one line of text, of at most 32768 bytes";
  const types = "wanted cpaas.io/distribution-registry-token or kubernetes.io/basic-auth";
  const nothing = `username: found nothing, ${line}; password: found nothing, ${line}`;
  const newline = "a value that ends in a newline (written with echo? use printf)";
  const plain = "a value under data that is not base64 (plain text belongs under stringData)";
  const refused: readonly [claim: string, secret: unknown, sentence: string][] = [
    ["of another type", { type: "Opaque", stringData: right }, `type: found "Opaque", ${types}`],
    ["without a type", { stringData: right }, `type: found nothing, ${types}`],
    ["without anything", { type }, nothing],
    ["with null for its values", { type, data: { username: null, password: null } }, nothing],
    ["that is no document", "secret", `type: found nothing, ${types}; ${nothing}`],
    ["whose parts are no objects", { type, data: "x", stringData: ["y"] }, nothing],
    ["with inherited values", { type, stringData: Object.create(right) }, nothing],
    [
      "with an empty password",
      { type, stringData: { ...right, password: "" } },
      `password: found an empty value, ${line}`,
    ],
    [
      "with a password that fits into no header",
      { type, stringData: { ...right, password: "p".repeat(32_769) } },
      `password: found 32769 bytes, ${line}`,
    ],
    [
      "with a password of echo",
      { type, stringData: { ...right, password: "pw\n" } },
      `password: found ${newline}, ${line}`,
    ],
    [
      "with a user of echo",
      { type, data: { ...encoded, username: base64("bob\r\n") } },
      `username: found ${newline}, ${line}`,
    ],
    [
      "that could smuggle a header",
      { type, stringData: { ...right, password: "a\r\nX: y" } },
      `password: found a control character, ${line}`,
    ],
    [
      "with a NUL",
      { type, stringData: { ...right, password: "a\u0000b" } },
      `password: found a control character, ${line}`,
    ],
    [
      "with a number for a password",
      { type, stringData: { ...right, password: 12345678 } },
      `password: found a number instead of text (put it in quotes), ${line}`,
    ],
    [
      "with plain text where base64 belongs",
      { type, data: { ...encoded, password: "s3cr3t!" } },
      `password: found ${plain}, ${line}`,
    ],
    [
      "with base64 that lacks its end",
      { type, data: { ...encoded, password: "czNjcjN0MQ" } },
      `password: found ${plain}, ${line}`,
    ],
    [
      "with a number under data",
      { type, data: { ...encoded, password: 1234 } },
      `password: found ${plain}, ${line}`,
    ],
    [
      "with bytes that are no text",
      { type, data: { ...encoded, password: base64(Uint8Array.of(0xff)) } },
      `password: found bytes that are not UTF-8, ${line}`,
    ],
    [
      "with a colon in the user, where RFC 7617 begins the password",
      { type, stringData: { ...right, username: "a:b" } },
      'username: found a ":", wanted a user name without ":"',
    ],
    [
      "with several mistakes, all told at once",
      { type: "Opaque\n", stringData: { username: "", password: true } },
      `type: found "Opaque\\n", ${types}; username: found an empty value, ${line}; ` +
        `password: found a boolean instead of text (put it in quotes), ${line}`,
    ],
  ];
  for (const [claim, secret, sentence] of refused) {
    it(`is none ${claim}`, () => {
      expect(read(secret)).to.equal(sentence);
    });
  }

  it("is told apart from its mistakes without a word of its values", () => {
    const value = fc.tuple(fc.string(), fc.string()).map(([a, b]) => `${a}S3CR3T${b}`);
    const bad = value.chain((text) =>
      fc.constantFrom<unknown>(`${text}\n`, `:${text}\u0000`, [text], { [text]: text }, text),
    );
    const secret = fc.record({
      type: fc.constantFrom(type, "Opaque", undefined),
      data: fc.record({ username: bad, password: bad }),
      stringData: fc.option(fc.record({ username: bad, password: bad })),
    });
    fc.assert(
      fc.property(secret, (document) => {
        const credential = parseCredential(document);
        if (!credential.ok) expect(JSON.stringify(credential)).not.to.contain("S3CR3T");
      }),
      { numRuns: 500 },
    );
  }).timeout(20_000);

  it("that is accepted is what was written, from either part", () => {
    const text = fc.string({ unit: "grapheme", minLength: 1 });
    fc.assert(
      fc.property(text, text, (username, password) => {
        const stringData = { username, password };
        const data = { username: base64(username), password: base64(password) };
        const credential = read({ type, stringData });
        expect(read({ type, data })).to.deep.equal(credential);
        if (typeof credential !== "string") expect(credential).to.deep.equal(stringData);
      }),
    );
  }).timeout(20_000);

  it("is looked for in any document without an exception", () => {
    const value = fc.oneof(fc.jsonValue(), fc.constant({ toString: 1 }));
    const document = fc.record({
      type: value,
      data: fc.oneof(value, fc.record({ username: value })),
    });
    fc.assert(
      fc.property(fc.oneof(document, fc.jsonValue()), (any) => {
        expect(parseCredential(any).ok).to.equal(false);
        expect(parseCertificates(any)).to.deep.equal([]);
      }),
    );
  }).timeout(20_000);
});

describe("certificates in a Secret", () => {
  let first = "";
  let second = "";

  before(async () => {
    const now = new Date("2026-01-01T00:00:00Z");
    [first, second] = (await Promise.all(
      ["first", "second"].map(async (name) => {
        const { certificate } = await createAuthority(name, now);
        return certificate.trim();
      }),
    )) as [string, string];
  });

  it("are read from every key that ends in .crt or .pem", () => {
    const secret = { data: { "ca.crt": base64(first), "other.pem": base64(second) } };
    expect(parseCertificates(secret)).to.deep.equal([first, second]);
  });

  it("are read from any other key whose value is PEM", () => {
    expect(parseCertificates({ stringData: { bundle: first } })).to.deep.equal([first]);
  });

  it("are read one by one from a bundle with words and other PEM between them", () => {
    const key = "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----";
    const bundle = `# ours\n${first}\r\n${key}\nsubject=CN = x\n${second}`;
    expect(parseCertificates({ stringData: { "ca.crt": bundle } })).to.deep.equal([first, second]);
  });

  it("are read with the line ends of other systems", () => {
    const [found] = parseCertificates({ stringData: { "ca.crt": first.replaceAll("\n", "\r\n") } });
    expect(found?.replaceAll("\r", "")).to.equal(first);
  });

  const none: readonly [claim: string, secret: unknown][] = [
    ["a password", { stringData: { password: "pw" } }],
    ["a key that ends in .crt and holds something else", { stringData: { "ca.crt": "none" } }],
    [
      "something that only looks like a certificate",
      {
        stringData: { "ca.crt": "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----" },
      },
    ],
    [
      "a certificate that was cut off",
      {
        stringData: { "ca.crt": "-----BEGIN CERTIFICATE-----\nMIIB" },
      },
    ],
    ["no values", {}],
    ["parts that are no objects", { data: "ca.crt", stringData: 7 }],
  ];
  for (const [claim, secret] of none) {
    it(`are none where there is ${claim}`, () => {
      expect(parseCertificates(secret)).to.deep.equal([]);
    });
  }

  it("are looked for in linear time", () => {
    const text = "-----BEGIN CERTIFICATE-----\n".repeat(40_000);
    expect(parseCertificates({ stringData: { "ca.crt": text } })).to.deep.equal([]);
  }).timeout(20_000);
});
