/** What can be said of docs/clients.md without running a tool. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { listItem } from "../support/markdown.ts";
import { readExample, transports } from "./example.ts";
import { needsTable, readOnlyVolumes } from "./report.ts";
import { tools } from "./tools.ts";
import { untestedTools } from "./untested-tools.ts";

const project = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const docs = readFileSync(project("docs/clients.md"), "utf8");

describe("docs/clients.md", () => {
  for (const { name, ofTheSystem, notes } of tools) {
    it(`has what the example of ${name}${ofTheSystem ? ", the system's," : ""} needs`, () => {
      expect(docs).to.include(`](../examples/${name})`);
      expect(docs).to.include(needsTable(readExample(name)));
      for (const note of notes) expect(docs).to.include(listItem(note));
    });
  }

  it("has what tools say of a volume that they can't write to", () => {
    expect(docs).to.include(readOnlyVolumes);
  });

  it("has what is known of tools that are not tested", () => {
    for (const note of untestedTools.flatMap(({ notes }) => notes)) {
      expect(docs).to.include(listItem(note));
    }
  });
});

describe("examples/", () => {
  const pulling = tools.filter(({ expectPulled }) => expectPulled !== undefined);
  for (const name of new Set(pulling.map(({ name }) => name))) {
    it(`say how to pull and push with ${name}, over TLS and over HTTP`, () => {
      const { commands } = readExample(name);
      for (const transport of transports) {
        for (const step of ["volume", "setup", "pull", "push"] as const) {
          expect(commands(step, transport), `${step} ${transport}`).not.to.equal("");
        }
      }
    });
  }

  for (const { name, others = [] } of tools) {
    for (const { operation } of others) {
      it(`say how to ${operation} with ${name}`, () => {
        const { commands } = readExample(name);
        expect(transports.map((transport) => commands(operation, transport)).join("")).not.to.equal(
          "",
        );
      });
    }
  }
});
