import { expect } from "chai";
import { Unavailable } from "../../src/connector/platform.ts";
import { createConnectorFinder, createConnectorIndex } from "../../src/kube/find-connector.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";

const object = (name: string, address: string): KubeObject => {
  const connector = {
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name, namespace: "team-a", uid: "u1", resourceVersion: "1" },
    spec: { connectorClassName: "oci", address },
  };
  return connector;
};

describe("createConnectorIndex()", () => {
  it("says nothing before the first list, since a connector that is missing would be none", () => {
    const cache = { ready: false, staleReason: "not listed yet", onChange: () => () => true };
    const connectorsAt = createConnectorIndex(cache);
    expect(() => connectorsAt("team-a", "https://harbor.example.com")).to.throw(
      Unavailable,
      "not listed yet",
    );
  });
});

describe("createConnectorFinder()", () => {
  const objects = new Map([
    ["team-a/harbor", object("harbor", "https://harbor.example.com")],
    ["team-a/broken", object("broken", "ftp://harbor.example.com")],
  ]);
  const find = createConnectorFinder({
    ready: true,
    staleReason: undefined,
    get: (name, namespace) => objects.get(`${namespace}/${name}`),
  });

  it("finds a connector", async () => {
    const answer = await find({ namespace: "team-a", name: "harbor" });
    if (answer.state !== "found") return expect.fail(answer.reason);
    expect(answer.connector).to.include({ namespace: "team-a", name: "harbor", uid: "u1" });
    expect(answer.connector.address.origin).to.equal("https://harbor.example.com");
    return undefined;
  });

  it("says what is wrong with one", async () => {
    const answer = await find({ namespace: "team-a", name: "broken" });
    expect(answer.state).to.equal("invalid");
    expect(answer).to.have.property("reason").that.contains("spec.address");
  });

  it("says that there is none", async () => {
    const answer = await find({ namespace: "team-b", name: "harbor" });
    expect(answer.state).to.equal("missing");
    expect(answer).to.have.property("reason").that.contains("team-b/harbor");
  });
});
