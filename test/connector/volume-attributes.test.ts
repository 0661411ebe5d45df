import { expect } from "chai";
import fc from "fast-check";
import { isConnectorName, isNamespace, showRef } from "../../src/connector/connector-ref.ts";
import { describeProblems } from "../../src/connector/problem.ts";
import { parseVolumeAttributes } from "../../src/connector/volume-attributes.ts";

/** The attributes with their connectors as `namespace/name`, or all problems in one sentence. */
function read(attributes: Record<string, string>) {
  const parsed = parseVolumeAttributes(attributes, "team-a");
  if (!parsed.ok) return describeProblems(parsed.problems);
  return { ...parsed.value, connectors: parsed.value.connectors.map(showRef) };
}

/** The one connector of most cases, with what else is said. */
const harbor = (attributes: Record<string, string> = {}) =>
  read({ connectors: "harbor", ...attributes });

const smallest = {
  connectors: ["team-a/harbor"],
  configurations: [],
  params: {},
  leaveOut: [],
  tokenLifetimeSeconds: undefined,
};

describe("the attributes of a volume", () => {
  it("are read with everything that can be said", () => {
    expect(
      read({
        connectors: "harbor,team-b/ghcr",
        "configuration.names": "docker-config,buildkitd,!context.token",
        "configuration.params": '{"buildkitd": {"mirror": "true"}}',
        "token.expiration": "30m",
      }),
    ).to.deep.equal({
      connectors: ["team-a/harbor", "team-b/ghcr"],
      configurations: ["docker-config", "buildkitd"],
      params: { buildkitd: { mirror: true } },
      leaveOut: ["context.token"],
      tokenLifetimeSeconds: 1800,
    });
  });

  it("need one connector and nothing else", () => {
    expect(read({ connectors: "harbor" })).to.deep.equal(smallest);
  });

  it("may stand beside those of the kubelet", () => {
    const kubelet = {
      "csi.storage.k8s.io/pod.name": "builder",
      "csi.storage.k8s.io/ephemeral": "true",
      "csi.storage.k8s.io/serviceAccount.tokens": "{}",
    };
    expect(harbor(kubelet)).to.deep.equal(smallest);
  });

  it("may be there and empty, as templates leave them", () => {
    const empty = { "connector.name": "", "connector.namespace": "", "configuration.names": "" };
    expect(harbor({ ...empty, "configuration.params": "", "token.expiration": "" })).to.deep.equal(
      smallest,
    );
  });
});

describe("the connectors of a volume", () => {
  const many = (count: number): string[] =>
    Array.from({ length: count }, (_, index) => `c${index}`);
  const cases: readonly [claim: string, attributes: Record<string, string>, refs: string[]][] = [
    [
      "are in the Pod's namespace unless they say another",
      { connectors: "harbor,team-b/ghcr" },
      ["team-a/harbor", "team-b/ghcr"],
    ],
    ["keep their order", { connectors: "b,a,c" }, ["team-a/b", "team-a/a", "team-a/c"]],
    ["may have white space around them", { connectors: " a , b\n" }, ["team-a/a", "team-a/b"]],
    ["may have empty entries among them", { connectors: "a,,b," }, ["team-a/a", "team-a/b"]],
    ["count once, however they are written", { connectors: "a,team-a/a,a" }, ["team-a/a"]],
    [
      "are 64 at most",
      { connectors: many(64).join(",") },
      many(64).map((name) => `team-a/${name}`),
    ],
    ["in the old spelling are one", { "connector.name": "harbor" }, ["team-a/harbor"]],
    [
      "in the old spelling have their namespace beside them",
      { "connector.name": "harbor", "connector.namespace": "team-b" },
      ["team-b/harbor"],
    ],
    [
      "in the old spelling are in the Pod's namespace where that is empty",
      { "connector.name": "harbor", "connector.namespace": "" },
      ["team-a/harbor"],
    ],
    [
      "are those of the new spelling where both are used",
      { connectors: "a", "connector.name": "b", "connector.namespace": "c" },
      ["team-a/a"],
    ],
    [
      "are those of the old spelling where the new one is empty",
      { connectors: "", "connector.name": "b", "connector.namespace": "c" },
      ["c/b"],
    ],
  ];
  for (const [claim, attributes, refs] of cases) {
    it(claim, () => {
      expect(read(attributes)).to.deep.equal({ ...smallest, connectors: refs });
    });
  }

  const rule =
    'wanted <name> or <namespace>/<name>: the name a DNS label of at most 61 characters (a-z, 0-9, "-"), ' +
    'the namespace a DNS label of at most 63 characters (a-z, 0-9, "-")';
  const none =
    "connectors: found nothing, wanted the connectors to use: <name> or <namespace>/<name>, separated by commas";
  const refused: readonly [claim: string, attributes: Record<string, string>, sentence: string][] =
    [
      ["none", {}, none],
      ["none but a comma", { connectors: " , " }, none],
      ["a namespace alone", { "connector.namespace": "team-b" }, none],
      ["a name that is no label", { connectors: "Harbor" }, `connectors: found "Harbor", ${rule}`],
      ["a path", { connectors: "../../etc" }, `connectors: found "../../etc", ${rule}`],
      [
        "two names in the old spelling, of which one would be lost",
        { "connector.name": "a,b" },
        `connector.name: found "team-a/a,b", ${rule}`,
      ],
      [
        "a namespace that is no label, in the old spelling",
        { "connector.name": "harbor", "connector.namespace": "team_b" },
        `connector.name: found "team_b/harbor", ${rule}`,
      ],
      [
        "more than one header can name",
        { connectors: many(65).join(",") },
        "connectors: found 65, wanted at most 64 connectors in one volume",
      ],
    ];
  for (const [claim, attributes, sentence] of refused) {
    it(`can't be ${claim}`, () => {
      expect(read(attributes)).to.equal(sentence);
    });
  }
});

describe("the configurations of a volume", () => {
  const cases: readonly [claim: string, names: string, expected: object][] = [
    [
      "may be called registry-config, as in existing manifests",
      "registry-config",
      { configurations: ["docker-config"] },
    ],
    [
      "count once, whatever they are called",
      "registry-config,docker-config,docker-config",
      { configurations: ["docker-config"] },
    ],
    [
      "are all there are",
      "docker-config,buildkitd,registries-conf,containerd",
      { configurations: ["docker-config", "buildkitd", "registries-conf", "containerd"] },
    ],
    [
      "may have white space around them",
      " buildkitd , containerd ",
      { configurations: ["buildkitd", "containerd"] },
    ],
    [
      "leave files out behind a !",
      "buildkitd,!ca.crt,!.env",
      { configurations: ["buildkitd"], leaveOut: ["ca.crt", ".env"] },
    ],
    [
      "leave a file in a folder out",
      "!certs.d/[::1]:5000/ca.crt",
      { leaveOut: ["certs.d/[::1]:5000/ca.crt"] },
    ],
  ];
  for (const [claim, names, expected] of cases) {
    it(claim, () => {
      expect(harbor({ "configuration.names": names })).to.deep.equal({ ...smallest, ...expected });
    });
  }

  const rule =
    "wanted one of docker-config, registry-config, buildkitd, registries-conf, containerd, " +
    "or !<file> to leave a file out";
  for (const name of [
    "settings",
    "Buildkitd",
    "toString",
    "!",
    "! a",
    "!/etc",
    "!a//b",
    "!a/",
    "!a\\b",
  ]) {
    it(`can't be ${JSON.stringify(name)}`, () => {
      expect(harbor({ "configuration.names": name })).to.equal(
        `configuration.names: found ${JSON.stringify(name)}, ${rule}`,
      );
    });
  }
});

describe("the lifetime of a volume's token", () => {
  for (const [text, seconds] of [
    ["10m", 600],
    ["600s", 600],
    ["1h0.9s", 3600],
    ["24h", 86_400],
  ] as const) {
    it(`may be ${text}, which is ${seconds} s`, () => {
      expect(harbor({ "token.expiration": text })).to.deep.equal({
        ...smallest,
        tokenLifetimeSeconds: seconds,
      });
    });
  }

  for (const text of ["9m59s", "0", "599.9999s", "-30m", "30", "1d", "30m ", "596524h"]) {
    it(`can't be ${JSON.stringify(text)}`, () => {
      expect(harbor({ "token.expiration": text })).to.equal(
        `token.expiration: found ${JSON.stringify(text)}, ` +
          "wanted a duration of at least 10m, such as 30m or 1h30m",
      );
    });
  }
});

describe("the attributes of a volume, with mistakes", () => {
  it("are answered with all of them at once", () => {
    const sentence = read({
      conectors: "harbor",
      "connector.name": "Harbor",
      "configuration.names": "settings,!",
      "configuration.params": "{",
      "token.expiration": "1m",
    });
    const places = String(sentence)
      .split("; ")
      .map((part) => part.split(", wanted")[0]);
    expect(places).to.deep.equal([
      'volumeAttributes: found "conectors"',
      'connector.name: found "team-a/Harbor"',
      'configuration.names: found "settings"',
      'configuration.names: found "!"',
      'configuration.params: found "{"',
      'token.expiration: found "1m"',
    ]);
  });

  it("name what is misspelt, and what there is, but not what it was set to", () => {
    expect(harbor({ "registry.password": "s3cr3t" })).to.equal(
      'volumeAttributes: found "registry.password", wanted one of connectors, connector.name, ' +
        "connector.namespace, configuration.names, configuration.params, token.expiration",
    );
  });
});

describe("the attributes of a volume, whatever they say", () => {
  const names = [
    "connectors",
    "connector.name",
    "connector.namespace",
    "configuration.names",
  ] as const;
  const text = fc.oneof(
    fc.string({ unit: fc.constantFrom(..."ab-,/!. :") }),
    fc.constantFrom("harbor,team-b/ghcr", "buildkitd,!ca.crt", "team-b", ""),
  );
  const attributes = fc.dictionary(fc.oneof(fc.constantFrom(...names), fc.string()), text);

  it("the answer is attributes that are safe in hosts and paths, or problems", () => {
    fc.assert(
      fc.property(attributes, (any) => {
        const parsed = parseVolumeAttributes(any, "team-a");
        if (!parsed.ok) {
          expect(parsed.problems).not.to.deep.equal([]);
          return;
        }
        for (const { namespace, name } of parsed.value.connectors) {
          expect(isNamespace(namespace) && isConnectorName(name)).to.equal(true);
        }
      }),
      { numRuns: 2000 },
    );
  }).timeout(20_000);

  it("it is found in linear time", () => {
    const long = 100_000;
    const hostile = {
      connectors: "a/".repeat(long),
      "configuration.names": `!${"a/".repeat(long)}!,${"x,".repeat(long)}`,
      "configuration.params": "[".repeat(long),
      "token.expiration": "1".repeat(long),
    };
    const sentence = String(read(hostile));
    expect(sentence).to.contain("more problems").and.have.length.below(10_000);
  }).timeout(20_000);
});
