import { expect } from "chai";
import fc from "fast-check";
import { parseVolumeAttributes } from "../../src/connector/volume-attributes.ts";
import { renderVolumeFiles } from "../../src/connector/volume-files.ts";
import type { FuzzProperty } from "./property.ts";

/** Whatever a Pod writes into its volume's attributes: files stay in the volume, and are what they are. */
export const volumeAttributes: FuzzProperty = {
  name: "volume-attributes",
  start: async () => ({
    inputsPerRun: 1,
    stop: () => undefined,
    check: async (parameters) => fc.assert(fc.property(attributes, judge), parameters),
  }),
};

const token = "t0k3n";

function judge(given: Readonly<Record<string, string>>): void {
  const parsed = parseVolumeAttributes(given, "team-a");
  if (!parsed.ok) {
    expect(parsed.problems).to.not.deep.equal([]);
    return;
  }
  const { connectors } = parsed.value;
  const [first, ...others] = connectors.map((ref) => ({
    ref,
    proxy: { preferred: "https" as const, http: "127.0.0.1:5080", https: "127.0.0.1:5443" },
    imageHost: `${ref.name}.example.com`,
  }));
  if (first === undefined) throw new Error("no connector");
  const rendered = renderVolumeFiles(parsed.value, {
    connectors: [first, ...others],
    token,
    caCertificate: "-----BEGIN CERTIFICATE-----\n",
    rootCertificates: "",
    noProxy: ["localhost"],
  });
  if (!rendered.ok) {
    expect(rendered.problems).to.not.deep.equal([]);
    return;
  }
  for (const [path, text] of rendered.value) {
    expect(path.split("/")).to.not.include.oneOf(["", ".", ".."]);
    expect(path).to.match(/^[A-Za-z0-9._:[\]/-]+$/);
    expect(text).to.not.contain("\0");
    if (path.endsWith(".json")) JSON.parse(text);
  }
  for (const left of parsed.value.leaveOut) expect(rendered.value.has(left)).to.equal(false);
}

const word = fc.oneof(
  fc.constantFrom(
    ...["harbor", "team-b/ghcr", "buildkitd", "docker-config", "registries-conf", "containerd"],
    ...["!ca.crt", "!context.token", "!../x", "!/etc/passwd", "!certs.d", "!.env", "!", "a/b/c"],
    ...["TEAM/x", "-", "..", "x".repeat(300), "\n", "\0", "ü", '"', "$(id)", "harbor\nevil", "%2f"],
  ),
  fc.string({ unit: "binary", maxLength: 10 }),
);
const list = fc
  .tuple(fc.array(word, { maxLength: 4 }), fc.constantFrom(",", ", ", " ,", ";", ",,"))
  .map(([words, comma]) => words.join(comma));
const right = fc.constantFrom("harbor", "harbor,team-b/ghcr");
const settings = fc.dictionary(
  fc.constantFrom("mountPath", "mirror", "scheme", "__proto__", "x"),
  fc.oneof(
    fc.constantFrom<unknown>("/run/x", "/a/../b", '/"x', true, "true", "https", "x"),
    fc.jsonValue(),
  ),
);
const params = fc.oneof(
  fc
    .dictionary(fc.constantFrom("buildkitd", "registries-conf", "containerd", "env", "x"), settings)
    .map((value) => JSON.stringify(value)),
  fc.jsonValue().map((value) => JSON.stringify(value)),
  fc.constantFrom("", "{", "[]", '{"__proto__":{"mountPath":"/x"}}', "[".repeat(10_000)),
);
const attributes: fc.Arbitrary<Record<string, string>> = fc.record(
  {
    connectors: fc.oneof({ weight: 4, arbitrary: right }, list),
    "connector.name": fc.oneof(right, list),
    "connector.namespace": word,
    "configuration.names": fc.oneof(
      fc.constantFrom("docker-config", "buildkitd,containerd,registries-conf,!ca.crt"),
      list,
    ),
    "configuration.params": params,
    "token.expiration": fc.oneof(fc.constantFrom("30m", "1h", "9m", "1e9h", "-1h"), word),
    "csi.storage.k8s.io/pod.name": word,
  },
  { requiredKeys: [] },
);
