import { expect } from "chai";
import fc from "fast-check";
import { parseChallenges } from "../../src/upstream/challenge.ts";
import { checkRealm } from "../../src/upstream/realm.ts";
import { testConnector } from "../proxy/test-proxy.ts";
import type { FuzzProperty } from "./property.ts";

const connector = testConnector("own", "https://registry.example.co.uk/base", [
  { name: "allowedRealmHosts", value: "auth.allowed.test" },
]);

/** Whatever a registry's challenge says: a password goes to its own domain, or where its connector allows, over TLS. */
export const challenges: FuzzProperty = {
  name: "challenges",
  start: async () => ({
    inputsPerRun: 1,
    stop: () => undefined,
    check: async (parameters) => fc.assert(fc.property(headers, judge), parameters),
  }),
};

function judge(header: string): void {
  for (const { params } of parseChallenges(header)) {
    const checked = checkRealm(params.get("realm") ?? "", connector, true);
    if (!checked.ok) {
      expect(checked.reason).to.not.equal("");
      continue;
    }
    // As it is sent, and read anew by somebody else.
    const { protocol, hostname, username, password } = new URL(checked.value.href);
    expect(protocol).to.equal("https:");
    expect(username + password).to.equal("");
    expect(hostname).to.match(/^(([^.]+\.)*example\.co\.uk|auth\.allowed\.test)$/);
  }
}

const host = fc.oneof(
  fc.constantFrom(
    ...["registry.example.co.uk", "auth.example.co.uk", "example.co.uk", "auth.allowed.test"],
    ...["evil.co.uk", "co.uk", "registry.example.co.uk.evil.test", "evilexample.co.uk", "[::1]"],
    ...[
      "auth.allowed.test.",
      "AUTH.allowed.test",
      "x.auth.allowed.test",
      "example.co.uk。evil.test",
    ],
    ...["169.254.169.254", "2130706433", "0x7f.1", "ｅｘａｍｐｌｅ.co.uk", "xn--example.co.uk"],
    ...[
      "auth.example.co.uk%2eevil.test",
      "auth.example.co.uk%00.evil.test",
      "evil.test\\.example.co.uk",
    ],
  ),
  fc.webAuthority({ withUserInfo: true, withIPv4: true, withIPv6: true, withPort: true }),
);
const realm = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .tuple(
        fc.constantFrom(
          "https://",
          "http://",
          "//",
          "https:",
          "https:/",
          "ftp://",
          "javascript:",
          "",
        ),
        fc.constantFrom(
          "",
          "",
          "",
          "u:p@",
          "registry.example.co.uk@",
          "registry.example.co.uk:443@",
          "@",
        ),
        host,
        fc.constantFrom("", ":443", ":0", ":99999", ":", ":80@evil.test"),
        fc.constantFrom(
          "",
          "/token",
          "/token?service=x",
          "\\@evil.test",
          "?@evil.test",
          "#@evil.test",
        ),
      )
      .map((parts) => parts.join("")),
  },
  fc.string({ unit: fc.constantFrom(..."htps:/\\@.#?%0exmalcouk[]"), maxLength: 40 }),
);
const param = fc.tuple(
  fc.constantFrom("realm", "REALM", "service", "scope", "error", "realm*", "x"),
  fc.constantFrom("=", " = ", "\t=", "==", " "),
  fc.oneof(
    { weight: 5, arbitrary: realm.map((text) => `"${text.replace(/["\\]/g, "\\$&")}"`) },
    realm,
    fc.constantFrom('"', '"unclosed', "''", '"\\"'),
  ),
);
const challenge = fc
  .tuple(
    fc.constantFrom("Bearer", "bearer", "Basic", "Negotiate abc==", "Bearer Bearer", "", "Digest"),
    fc.array(
      param.map((parts) => parts.join("")),
      { maxLength: 4 },
    ),
    fc.constantFrom(",", ", ", " ", ",,", "\t,"),
  )
  .map(([scheme, params, comma]) => `${scheme} ${params.join(comma)}`);
const headers = fc.array(challenge, { maxLength: 3 }).map((parts) => parts.join(", "));
