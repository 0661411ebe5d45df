import { expect } from "chai";
import fc from "fast-check";
import {
  type ConfigurationParams,
  parseConfigurationParams,
} from "../../src/connector/configuration-params.ts";
import { describeProblems } from "../../src/connector/problem.ts";

/** The params, or all problems in one sentence. */
const read = (text: string | undefined) => {
  const params = parseConfigurationParams(text);
  return params.ok ? params.value : describeProblems(params.problems);
};

describe("configuration.params", () => {
  const accepted: readonly [
    claim: string,
    text: string | undefined,
    params: ConfigurationParams,
  ][] = [
    ["may be left out", undefined, {}],
    ["may be empty", "", {}],
    ["may be white space", " \n", {}],
    ["may be an empty object", "{}", {}],
    ["may name a configuration and say nothing about it", '{"buildkitd": {}}', { buildkitd: {} }],
    [
      "set where a volume is mounted",
      '{"buildkitd": {"mountPath": "/run/my-v_1.x"}}',
      { buildkitd: { mountPath: "/run/my-v_1.x" } },
    ],
    [
      "set a mirror",
      '{"registries-conf": {"mirror": true}}',
      { "registries-conf": { mirror: true } },
    ],
    [
      "set a mirror by a text, as existing manifests write booleans",
      '{"containerd": {"mirror": "true"}, "buildkitd": {"mirror": "false"}}',
      { containerd: { mirror: true }, buildkitd: { mirror: false } },
    ],
    [
      "say to the .env where a volume is mounted",
      '{"env": {"mountPath": "/connector"}}',
      { env: { mountPath: "/connector" } },
    ],
    ["set a scheme", '{"containerd": {"scheme": "https"}}', { containerd: { scheme: "https" } }],
    ["know a configuration by its other name", '{"registry-config": {}}', { "docker-config": {} }],
  ];
  for (const [claim, text, params] of accepted) {
    it(claim, () => {
      expect(read(text)).to.deep.equal(params);
    });
  }

  const at = "configuration.params";
  const object = `wanted a JSON object such as {"buildkitd": {"mountPath": "/connector"}}`;
  const names =
    "wanted one of docker-config, registry-config, buildkitd, registries-conf, containerd, env";
  const path = "wanted an absolute path of letters, digits and . _ - /, such as /connector";
  const refused: readonly [claim: string, text: string, sentence: string][] = [
    ["something that is no JSON", "{buildkitd: x}", `${at}: found "{buildkitd: x}", ${object}`],
    ["JSON that is no object", "[1]", `${at}: found "[1]", ${object}`],
    ["null", "null", `${at}: found "null", ${object}`],
    ["a configuration that nobody knows", '{"settings": {}}', `${at}: found "settings", ${names}`],
    [
      "a name that every object inherits",
      '{"toString": {}, "__proto__": {}}',
      `${at}: found "toString", ${names}; ${at}: found "__proto__", ${names}`,
    ],
    [
      "settings that are no object",
      '{"buildkitd": "mirror"}',
      `${at}.buildkitd: found "mirror", wanted a JSON object of settings`,
    ],
    [
      "settings that are a list",
      '{"buildkitd": [{"mirror": true}]}',
      `${at}.buildkitd: found [{"mirror":true}], wanted a JSON object of settings`,
    ],
    [
      "a setting that nobody knows",
      '{"buildkitd": {"mirrors": true}}',
      `${at}.buildkitd: found "mirrors", wanted settings of buildkitd: mountPath, mirror, scheme`,
    ],
    [
      "a setting that every object inherits",
      '{"buildkitd": {"constructor": true}}',
      `${at}.buildkitd: found "constructor", wanted settings of buildkitd: mountPath, mirror, scheme`,
    ],
    [
      "a setting that this configuration has no use for",
      '{"registries-conf": {"mountPath": "/x"}}',
      `${at}.registries-conf: found "mountPath", wanted settings of registries-conf: mirror, scheme`,
    ],
    [
      "a setting where there is none, under the name that was written",
      '{"registry-config": {"mirror": true}}',
      `${at}.registry-config: found "mirror", wanted settings of docker-config: none`,
    ],
    [
      "another scheme",
      '{"buildkitd": {"scheme": "HTTP"}}',
      `${at}.buildkitd.scheme: found "HTTP", wanted "http" or "https"`,
    ],
    [
      "a boolean in capitals",
      '{"buildkitd": {"mirror": "True"}}',
      `${at}.buildkitd.mirror: found "True", wanted true or false`,
    ],
    [
      "a boolean in a list",
      '{"buildkitd": {"mirror": ["true"]}}',
      `${at}.buildkitd.mirror: found ["true"], wanted true or false`,
    ],
    [
      "a boolean that can't be made a text",
      '{"buildkitd": {"mirror": {"toString": 1}}}',
      `${at}.buildkitd.mirror: found {"toString":1}, wanted true or false`,
    ],
    [
      "a relative path",
      '{"buildkitd": {"mountPath": "connector"}}',
      `${at}.buildkitd.mountPath: found "connector", ${path}`,
    ],
    [
      "the root",
      '{"buildkitd": {"mountPath": "/"}}',
      `${at}.buildkitd.mountPath: found "/", ${path}`,
    ],
    [
      "a path that breaks out of its quotes",
      '{"buildkitd": {"mountPath": "/a\\"]\\nhttp=true"}}',
      `${at}.buildkitd.mountPath: found "/a\\"]\\nhttp=true", ${path}`,
    ],
    [
      "several mistakes, all told at once",
      '{"x": 1, "buildkitd": {"mirror": 1, "scheme": 2}}',
      `${at}: found "x", ${names}; ${at}.buildkitd.mirror: found 1, wanted true or false; ` +
        `${at}.buildkitd.scheme: found 2, wanted "http" or "https"`,
    ],
  ];
  for (const [claim, text, sentence] of refused) {
    it(`can't be ${claim}`, () => {
      expect(read(text)).to.equal(sentence);
    });
  }

  it("are params or problems whatever the JSON, never an exception", () => {
    const value = fc.oneof(fc.jsonValue(), fc.constant({ toString: 1 }));
    const setting = fc.dictionary(fc.constantFrom("mirror", "mountPath", "scheme", "x"), value);
    const configuration = fc.constantFrom("buildkitd", "containerd", "registry-config", "y");
    fc.assert(
      fc.property(fc.dictionary(configuration, fc.oneof(setting, value)), (document) => {
        const params = parseConfigurationParams(JSON.stringify(document));
        if (!params.ok) expect(params.problems).not.to.deep.equal([]);
      }),
      { numRuns: 500 },
    );
  }).timeout(20_000);

  it("are refused without an exception where they are too deep to be shown", () => {
    const deep = "[".repeat(100_000) + "]".repeat(100_000);
    expect(read(`{"buildkitd": {"mirror": ${deep}}}`)).to.equal(
      `${at}.buildkitd.mirror: found something that can't be shown, wanted true or false`,
    );
  });
});
