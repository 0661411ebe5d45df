import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { readForwardExample, type Transport } from "./example.ts";
import { diffIdsOf } from "./fixtures.ts";
import type { Place } from "./place.ts";
import type { Achievement } from "./report.ts";
import type { Tool } from "./tools.ts";
import type { Workbench } from "./workbench.ts";

/** A tool by the commands of docs/forward-proxy.md: its base image from one registry, and the result to another. */
export function testForwardProxy(
  tool: Tool,
  workbench: () => Workbench,
  { achieved }: { readonly achieved: Map<Achievement, Set<Transport>> },
): void {
  const name = tool.ofTheSystem ? `${tool.name} of the system` : tool.name;
  describe(`${name}, by the forward proxy`, () => {
    const resources = cleanup();
    let place: Place;

    before(async () => {
      const bench = workbench();
      place = resources.add(
        await bench.place(readForwardExample(tool.name), { transport: "tls", ...tool }),
      );
      await bench.named.base.put(`${place.prefix}/base`, "1", bench.fixtures.small.base);
    });
    after(resources.stop);

    it("uses two registries by their own names, with nothing but the volume's .env", async () => {
      const { named, fixtures } = workbench();
      const { status, stdout, stderr } = await place.run("push");
      expect(status, stdout + stderr).to.equal(0);
      const stored = await named.target.read(`${place.prefix}/app`, tool.tag ?? "1");
      if (tool.name === "helm") {
        expect(await readdir(join(place.folder("small"), "pulled"))).to.deep.equal([
          "app-1.0.0.tgz",
        ]);
      } else {
        expect(stored.diffIds).to.include.members([...diffIdsOf(fixtures.small.base)]);
      }
      achieved.set("forward", new Set(["tls"]));
    });
  });
}
