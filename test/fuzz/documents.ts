import { expect } from "chai";
import fc from "fast-check";
import { stringify } from "yaml";
import { readFolderDocuments } from "../../src/standalone/folder-documents.ts";
import type { FuzzProperty } from "./property.ts";

const password = "secret-of-alice";

/** Whatever a file of connectors and Secrets says: it is read or refused, a connector is safe to use, and no password is shown. */
export const documents: FuzzProperty = {
  name: "documents",
  start: async () => ({
    inputsPerRun: 1,
    stop: () => undefined,
    check: async (parameters) => fc.assert(fc.property(texts, judge), parameters),
  }),
};

function judge(text: string): void {
  const { connectors, invalid, problems, ignored } = readFolderDocuments(text);
  for (const { namespace, name, address, addressExtensions, ...rest } of connectors) {
    expect(`${namespace}/${name}`).to.match(/^[a-z0-9-]+\/[a-z0-9.-]+$/);
    for (const { origin, basePath, imageHost } of [address, ...addressExtensions]) {
      expect(new URL(origin).origin).to.equal(origin);
      expect(basePath).to.match(/^(\/[\w~-][\w.~-]*)*$/);
      expect(imageHost).to.match(/^[[\]a-z0-9_.:-]+$/);
    }
    for (const host of [...rest.allowedRealmHosts, ...rest.allowedRedirectHosts]) {
      expect(host).to.match(/^[a-z0-9.-]+$/);
    }
    for (const { verbs, repositories, serviceAccounts } of rest.rules ?? []) {
      expect(verbs.length * repositories.length * serviceAccounts.length).to.be.above(0);
    }
  }
  const said = [...problems, ...ignored, ...[...invalid].flat()].join("\n");
  expect(said).to.not.contain(password).and.not.contain("\0");
}

const odd = fc.oneof(
  fc.jsonValue(),
  fc.constantFrom<unknown>(
    ...["a.test", "*", "../x", "https://h/..", "x\0y", "ü", "1e3"],
    ...[{ toString: 1, valueOf: 1 }, { __proto__: null, constructor: 1 }, [[]], "x".repeat(300)],
  ),
);
const maybe = <T>(right: T): fc.Arbitrary<unknown> =>
  fc.oneof(
    { weight: 6, arbitrary: fc.constant<unknown>(right) },
    { weight: 1, arbitrary: odd },
    { weight: 1, arbitrary: fc.constant(undefined) },
  );
const metadata = fc.record({ name: maybe("harbor"), namespace: maybe("team-a"), uid: maybe("u") });
const param = fc.record({
  name: fc.constantFrom(
    ...["allowedRealmHosts", "allowedRedirectHosts", "redirects", "rules", "immutableTags", "x"],
  ),
  value: fc.oneof(
    maybe("a.test,b.test"),
    maybe('[{"verbs":["pull"],"repositories":["team-a/**"]}]'),
    maybe([{ verbs: ["push"], repositories: ["**"], serviceAccounts: ["team-a/*"] }]),
    maybe("v*,release-*"),
    maybe("pass"),
  ),
});
const connector = fc.record({
  apiVersion: maybe("connectors.alauda.io/v1alpha1"),
  kind: maybe("Connector"),
  metadata,
  spec: fc.record({
    connectorClassName: maybe("oci"),
    address: fc.oneof(
      maybe("https://harbor.example.com:8443/base"),
      fc.constantFrom(`https://alice:${password}@harbor.test`, `alice:${password}@harbor.test`),
    ),
    addressExtensions: fc.oneof(fc.array(maybe({ name: "a", value: "http://b" })), odd),
    auth: maybe({ name: "tokenAuth", secretRef: { name: "s" } }),
    caCertSecretRef: maybe({ name: "ca" }),
    params: fc.oneof(fc.array(param, { maxLength: 3 }), odd),
  }),
});
const secret = fc.record({
  apiVersion: maybe("v1"),
  kind: maybe("Secret"),
  metadata,
  type: maybe("cpaas.io/distribution-registry-token"),
  stringData: fc.oneof(
    fc.constant({ username: "alice", password }),
    maybe({ password: [password] }),
  ),
  data: maybe({ password: Buffer.from(password).toString("base64") }),
});
/** Written by a library, with what it does not write put into it. */
const texts = fc
  .tuple(
    fc
      .array(fc.oneof(connector, secret, fc.jsonValue()), { maxLength: 3 })
      .map((all) => all.map((one) => stringify(one)).join("---\n")),
    fc.array(
      fc.tuple(
        fc.nat(500),
        fc.constantFrom(
          ...[
            "&a ",
            "*a",
            "!!js/function x",
            "\t",
            "---\n",
            "...",
            "? ",
            "- ",
            ": ",
            "|",
            ">",
            "{",
            "[",
          ],
          ...["<<: *a\n", "\u0000", "\u2028", "'", '"', "#", "%YAML 9.9\n", "!!binary ", "&a [*a]"],
        ),
      ),
      { maxLength: 3 },
    ),
  )
  .map(([text, puts]) =>
    puts.reduce((before, [at, put]) => before.slice(0, at) + put + before.slice(at), text),
  );
