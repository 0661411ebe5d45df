import { expect } from "chai";
import { parseRegistryAddress } from "../../../src/connector/registry-address.ts";
import { translateMount } from "../../../src/proxy/relay/blob-mount.ts";

const digest = `sha256:${"a".repeat(64)}`;
const ref = { namespace: "team-a", name: "harbor" };
const host = "127.0.0.1:5443";

describe("translateMount(): a cross-repository mount", () => {
  const asked = `mount=${encodeURIComponent(digest)}`;
  const own = "namespaces%2Fteam-a%2Fconnectors%2Fharbor%2F";
  const harbor = addressOf("https://harbor.test");

  const translated: readonly (readonly [string, string, string | undefined])[] = [
    ["with our prefix", `from=${own}lib%2Falpine&${asked}`, "lib/alpine"],
    ["with our prefix, not encoded", `${asked}&from=namespaces/team-a/connectors/harbor/a`, "a"],
    ["without a prefix, as through a mirror", `${asked}&from=lib%2Falpine`, "lib/alpine"],
    ["without `from`, as regctl has it", asked, undefined],
    ["from this host, as crane has it", `${asked}&from=${own}a&origin=127.0.0.1%3A5443`, "a"],
    ["from another address of the proxy", `${asked}&from=${own}a&origin=localhost%3A5080`, "a"],
    ["from a connector's own host", `${asked}&from=lib%2Fa&origin=${host}`, "lib/a"],
    ["with a digest that is not encoded", `mount=${digest}&from=a`, "a"],
    ["with names that are encoded", `m%6funt=${digest}&%66rom=a`, "a"],
    [
      "of a repository called like our prefix",
      `${asked}&from=${own}namespaces%2Fx`,
      "namespaces/x",
    ],
  ];
  for (const [name, query, mountFrom] of translated) {
    it(`is translated ${name}`, () => {
      const from = mountFrom === undefined ? "" : `&from=${encodeURIComponent(mountFrom)}`;
      expect(translateMount(query, ref, harbor, host)).to.deep.equal({
        query: `mount=${encodeURIComponent(digest)}${from}`,
        from: mountFrom,
        mountFrom,
      });
    });
  }

  it("keeps other parameters as they are", () => {
    const query = `a=%2F&${asked}&b&from=lib%2Falpine`;
    const mount = translateMount(query, ref, harbor, host);
    expect(mount?.query).to.equal(`a=%2F&b&mount=${encodeURIComponent(digest)}&from=lib%2Falpine`);
  });

  it("knows Docker Hub's official images", () => {
    const hub = addressOf("https://docker.io");
    const query = `${asked}&from=${own}alpine`;
    const mount = translateMount(query, ref, hub, host);
    expect(mount).to.include({ from: "alpine", mountFrom: "library/alpine" });
    expect(translateMount(`${asked}&from=a%2Fb`, ref, hub, host)?.mountFrom).to.equal("a/b");
  });

  const dropped: readonly (readonly [string, string])[] = [
    ["nothing", ""],
    ["a plain upload", "digest=x"],
    ["`from` alone", "from=a"],
    ["another connector's repository", `${asked}&from=namespaces%2Fteam-a%2Fconnectors%2Fghcr%2Fa`],
    ["another namespace's", `${asked}&from=namespaces%2Fteam-b%2Fconnectors%2Fharbor%2Fa`],
    ["another registry's, as crane and ko have it", `${asked}&from=lib%2Fa&origin=index.docker.io`],
    ["another registry's, in disguise", `${asked}&from=lib%2Fa&%6frigin=index.docker.io`],
    ["another registry's, without a name for it", `${asked}&from=lib%2Fa&origin=`],
    ["no digest", "mount=latest&from=a"],
    ["an empty digest", "mount=&from=a"],
    ["a repository that is none", `${asked}&from=..%2Fa`],
    ["an empty repository", `${asked}&from=`],
    ["a repository in upper case", `${asked}&from=A`],
    ["a prefix alone", `${asked}&from=${own}`],
    ["a prefix and nothing good", `${asked}&from=${own}..`],
    ["something that can't be decoded", `${asked}&from=%zz`],
  ];
  for (const [name, query] of dropped) {
    it(`is dropped: ${name}`, () => {
      expect(translateMount(query, ref, harbor, host)).to.equal(undefined);
    });
  }
});

function addressOf(text: string): Parameters<typeof translateMount>[2] {
  const parsed = parseRegistryAddress(text, "");
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
