import { readFileSync } from "node:fs";
import { expect } from "chai";
import { parse } from "yaml";
import { unknownInConnector } from "../../src/connector/known-fields.ts";

/** A part of an OpenAPI schema. */
interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
}

describe("unknownInConnector()", () => {
  const crd = parse(readFileSync(new URL("../../daemonset/crd.yaml", import.meta.url), "utf8"));
  const schema: Schema = crd.spec.versions[0].schema.openAPIV3Schema;

  /** A value with every field that a schema has, and one more in each object of the spec where that is wanted. */
  const sampleOf = ({ properties, items }: Schema, more: object): unknown => {
    if (items !== undefined) return [sampleOf(items, more)];
    if (properties === undefined) return "x";
    const fields = Object.entries(properties).map(([name, of]) => [name, sampleOf(of, more)]);
    return { ...Object.fromEntries(fields), ...more };
  };

  it("knows every field of the definition in a cluster", () => {
    expect(unknownInConnector(sampleOf(schema, {}))).to.deep.equal([]);
  });

  it("knows no other field, wherever it is", () => {
    const found = unknownInConnector(sampleOf(schema, { other: 1 }));
    expect(found.map(({ path }) => path).toSorted()).to.deep.equal([
      "metadata",
      "spec",
      "spec.addressExtensions.0",
      "spec.auth",
      "spec.auth.params.0",
      "spec.auth.secretRef",
      "spec.auth.serviceAccountRef",
      "spec.caCertSecretRef",
      "spec.params.0",
      "the document",
    ]);
    for (const problem of found) expect(problem.found).to.equal('the field "other"');
  });

  it("is not misled by names that every object has, or by values of another kind", () => {
    const odd = JSON.parse('{"__proto__": 1, "constructor": 1, "spec": {"toString": 1}}');
    expect(unknownInConnector(odd)).to.have.length(3);
    for (const value of [undefined, null, 1, "spec", [], { spec: [] }, { spec: { params: {} } }]) {
      expect(unknownInConnector(value)).to.deep.equal([]);
    }
  });

  it("leaves parameters alone that resemble none", () => {
    const params = (...names: readonly unknown[]): object => ({
      spec: { params: names.map((name) => ({ name })) },
    });
    expect(unknownInConnector(params("rules", "theirs", "", 7, undefined))).to.deep.equal([]);
    const [problem] = unknownInConnector(params("rules", "immutabletags", "redirect"));
    expect(problem).to.deep.include({ path: "spec.params.1.name", found: '"immutabletags"' });
    expect(problem?.wanted).to.include("(did you mean immutableTags?)");
  });
});
