import { expect } from "chai";
import fc from "fast-check";
import { createAuthority } from "../../src/certificate-authority.ts";
import { parseCertificates, parseCredential } from "../../src/connector/credential.ts";
import { describeProblems } from "../../src/connector/problem.ts";
import {
  parseRegistryAddress,
  type RegistryAddress,
} from "../../src/connector/registry-address.ts";

const type = "cpaas.io/distribution-registry-token";
const addressOf = (text: string): RegistryAddress => {
  const address = parseRegistryAddress(text, "address");
  return address.ok ? address.value : expect.fail(describeProblems(address.problems));
};
const harbor = addressOf("https://harbor.example.com");
const base64 = (value: string | Uint8Array): string => Buffer.from(value).toString("base64");

/** The credential, or all problems in one sentence. */
const read = (secret: unknown, address = harbor) => {
  const credential = parseCredential(secret, address);
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
  const types =
    "wanted cpaas.io/distribution-registry-token, kubernetes.io/basic-auth or kubernetes.io/dockerconfigjson";
  const nothing = `username: found nothing, ${line}; password: found nothing, ${line}`;
  const newline = "a value that ends in a newline (written with echo? use printf)";
  const plain = "a value under data that is not base64 (plain text belongs under stringData)";
  const refused: readonly [claim: string, secret: unknown, sentence: string][] = [
    [
      "with a docker configuration under another type",
      { type: "kubernetes.io/dockercfg", stringData: right },
      `type: found "kubernetes.io/dockercfg", ${types}`,
    ],
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
        const credential = parseCredential(document, harbor);
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
        expect(parseCredential(any, harbor).ok).to.equal(false);
        expect(parseCertificates(any)).to.deep.equal([]);
      }),
    );
  }).timeout(20_000);
});

describe("an identity token", () => {
  it("is a password whose user is <token>", () => {
    const secret = { type, stringData: { username: "<token>", password: "refresh-me" } };
    expect(read(secret)).to.deep.equal({
      username: "<token>",
      password: "refresh-me",
      kind: "identityToken",
    });
  });
});

describe("a credential in a docker configuration", () => {
  const pullSecret = (config: unknown) => ({
    type: "kubernetes.io/dockerconfigjson",
    data: { ".dockerconfigjson": base64(JSON.stringify(config)) },
  });
  const login = (user: string): { readonly auth: string } => ({ auth: base64(`${user}:pw`) });
  const userIn = (auths: unknown, address = harbor) => {
    const credential = read(pullSecret({ auths }), address);
    return typeof credential === "string" ? credential : credential.username;
  };

  const fitting: readonly [key: string, address: string][] = [
    ["harbor.example.com", "https://harbor.example.com"],
    ["Harbor.Example.com", "https://harbor.example.com"],
    ["harbor.example.com:443", "https://harbor.example.com"],
    ["harbor.example.com", "https://harbor.example.com:443"],
    ["https://harbor.example.com", "https://harbor.example.com"],
    ["https://harbor.example.com/v2/", "https://harbor.example.com"],
    ["http://harbor.example.com/v1/", "https://harbor.example.com"],
    ["harbor.example.com:8443", "https://harbor.example.com:8443"],
    ["harbor.example.com", "https://harbor.example.com/artifactory/api/docker/x"],
    ["harbor.example.com/artifactory", "https://harbor.example.com/artifactory/api/docker/x"],
    ["harbor.example.com:80", "http://harbor.example.com"],
    ["[fd00::1]:5000", "http://[fd00::1]:5000"],
    ["https://index.docker.io/v1/", "https://docker.io"],
    ["index.docker.io", "https://registry-1.docker.io"],
    ["docker.io", "https://index.docker.io"],
    ["registry-1.docker.io", "https://hub.docker.com"],
  ];
  for (const [key, address] of fitting) {
    it(`is that of ${key} for ${address}`, () => {
      expect(
        userIn({ "other.test": login("other"), [key]: login("robot") }, addressOf(address)),
      ).to.equal("robot");
    });
  }

  const foreign: readonly [key: string, address: string][] = [
    ["example.com", "https://harbor.example.com"],
    ["*.example.com", "https://harbor.example.com"],
    ["*", "https://harbor.example.com"],
    ["", "https://harbor.example.com"],
    ["harbor.example.com.evil.test", "https://harbor.example.com"],
    ["robot@harbor.example.com", "https://harbor.example.com"],
    ["harbor.example.com:8443", "https://harbor.example.com"],
    ["harbor.example.com", "https://harbor.example.com:8443"],
    ["harbor.example.com:80", "https://harbor.example.com"],
    ["harbor.example.com/team-a", "https://harbor.example.com"],
    ["harbor.example.com/art", "https://harbor.example.com/artifactory"],
    ["https://index.docker.io/v1/", "https://harbor.example.com"],
    ["__proto__", "https://harbor.example.com"],
  ];
  for (const [key, address] of foreign) {
    it(`is not that of ${JSON.stringify(key)} for ${address}`, () => {
      const found = userIn({ [key]: login("S3CR3T") }, addressOf(address));
      const name = address.replace("https://", "");
      expect(found).to.contain(
        '.dockerconfigjson: found no entry for this registry, wanted JSON with an entry in "auths"',
      );
      expect(found).to.contain(name).and.not.contain("S3CR3T");
    });
  }

  it("is that of the longest path that fits", () => {
    const auths = {
      "harbor.example.com": login("host"),
      "harbor.example.com/artifactory/api": login("path"),
      "harbor.example.com/artifactory/api/docker/y": login("other"),
    };
    const address = addressOf("https://harbor.example.com/artifactory/api/docker/x");
    expect(userIn(auths, address)).to.equal("path");
    expect(userIn(auths)).to.equal("host");
  });

  it("is that of the key which docker writes, of several that fit", () => {
    const auths = {
      "registry-1.docker.io": login("other"),
      "https://index.docker.io/v1/": login("docker"),
    };
    expect(userIn(auths, addressOf("https://docker.io"))).to.equal("docker");
  });

  it("never reads another entry, whatever is in it", () => {
    const auths = {
      "other.test": { auth: 7, identitytoken: {} },
      "harbor.example.com": login("a"),
    };
    expect(userIn(auths)).to.equal("a");
  });

  const path = ".dockerconfigjson";
  const line = "wanted one line of text, of at most 32768 bytes";
  const rule = 'wanted "auth", which is the base64 of user:password, or "username" and "password"';
  const auth = (text: string | Uint8Array) => ({ auth: base64(text) });
  const entries: readonly [claim: string, entry: unknown, found: unknown][] = [
    ["with auth", auth("robot$x:p:w"), { username: "robot$x", password: "p:w" }],
    ["with auth that lacks its padding", { auth: "YTpiYg" }, { username: "a", password: "bb" }],
    [
      "of kubectl, with auth and the parts of it",
      { username: "a", password: "b", email: "e", auth: base64("a:b") },
      { username: "a", password: "b" },
    ],
    ["with user and password", { username: "a", password: "b" }, { username: "a", password: "b" }],
    [
      "with an identity token",
      { auth: base64("00000000-0000-0000-0000-000000000000:"), identitytoken: "refresh-me" },
      { username: "<token>", password: "refresh-me", kind: "identityToken" },
    ],
    [
      "with an identity token as a helper gives it",
      { username: "<token>", password: "refresh-me" },
      { username: "<token>", password: "refresh-me", kind: "identityToken" },
    ],
    [
      "with an identity token that is empty",
      { ...auth("a:b"), identitytoken: "" },
      { username: "a", password: "b" },
    ],
    [
      "without a login",
      {},
      `${path}: found an entry for harbor.example.com without a login (a credential helper keeps it elsewhere), ${rule}`,
    ],
    [
      "with auth that is not base64",
      { auth: "S3CR3T!:" },
      `${path}: found an entry for harbor.example.com whose "auth" is not the base64 of user:password, ${rule}`,
    ],
    [
      "with auth without a colon",
      auth("S3CR3T"),
      `${path}: found an entry for harbor.example.com whose "auth" is not the base64 of user:password, ${rule}`,
    ],
    [
      "of echo",
      auth("a:S3CR3T\n"),
      `${path}: password: found a value that ends in a newline (written with echo? use printf), ${line}`,
    ],
    ["with an empty password", auth("a:"), `${path}: password: found an empty value, ${line}`],
    ["without a user", { password: "S3CR3T" }, `${path}: username: found nothing, ${line}`],
    [
      "with bytes that are no text",
      auth(Uint8Array.of(0x61, 0x3a, 0xff)),
      `${path}: password: found bytes that are not UTF-8, ${line}`,
    ],
    [
      "with a number",
      { username: "a", password: 12345678 },
      `${path}: password: found a number instead of text, ${line}`,
    ],
  ];
  for (const [claim, entry, found] of entries) {
    it(`is read of an entry ${claim}`, () => {
      expect(read(pullSecret({ auths: { "harbor.example.com": entry } }))).to.deep.equal(found);
    });
  }

  const configs: readonly [claim: string, secret: unknown, found: string][] = [
    ["without the key", { data: {} }, "nothing, wanted the JSON of a docker configuration"],
    ["with other JSON", pullSecret(["auths"]), 'something without "auths"'],
    ["whose auths are a list", pullSecret({ auths: [] }), 'something without "auths"'],
    [
      "that is no JSON",
      { stringData: { [path]: '{"auths": S3CR3T' } },
      'something without "auths"',
    ],
    [
      "that names a helper alone",
      pullSecret({ credHelpers: { "harbor.example.com": "S3CR3T" } }),
      'something without "auths"',
    ],
  ];
  for (const [claim, secret, found] of configs) {
    it(`is none of a Secret ${claim}`, () => {
      const whole = { ...(secret as object), type: "kubernetes.io/dockerconfigjson" };
      expect(read(whole)).to.contain(`${path}: found ${found}`).and.not.contain("S3CR3T");
    });
  }
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
