import { readFile, writeFile } from "node:fs/promises";
import { expect } from "chai";
import { oddRegistries } from "../support/registries/odd-registries.ts";
import { differences } from "./differences.ts";
import { renderReport } from "./report.ts";
import { upstreamKinds } from "./upstreams.ts";
import { chapters } from "./workflows.ts";

const file = new URL("../../docs/conformance.md", import.meta.url);

describe("docs/conformance.md", () => {
  it("says what is known of the protocol through the proxy", async () => {
    const text = renderReport();
    if (process.env.WRITE_DOCS) await writeFile(file, text);
    expect(await readFile(file, "utf8")).to.equal(text);
  });
});

describe("the conformance report: odd registries", () => {
  it("have a name each", () => {
    expect(new Set(oddRegistries.map(({ id }) => id)).size).to.equal(oddRegistries.length);
  });

  for (const { id, test } of oddRegistries) {
    it(`have a test: ${id}`, async () => {
      const text = await readFile(new URL(`../${test}`, import.meta.url), "utf8");
      expect(text).to.contain(`oddRegistry("${id}")`);
    });
  }
});

describe("the conformance report: what differs through the proxy", () => {
  const kinds = upstreamKinds.map(({ name }) => name);
  for (const { chapter, workflows, kinds: some = kinds } of differences) {
    it(`is of workflows and registries that there are: ${chapter}: ${workflows}`, () => {
      const names = chapters
        .filter(({ title }) => title === chapter)
        .flatMap((known) => known.workflows.map(({ name }) => name));
      expect(names).to.include.members([...workflows]);
      expect(kinds).to.include.members([...some]);
    });
  }
});
