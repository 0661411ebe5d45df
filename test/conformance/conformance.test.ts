import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type Pair, startPair } from "./conversations.ts";
import { knownDifferences } from "./differences.ts";
import { upstreamKinds } from "./upstreams.ts";
import { repositoryFor } from "./workflow.ts";
import { chapters } from "./workflows.ts";

for (const kind of upstreamKinds) {
  describe(`${kind.name}: ${kind.description}`, function () {
    this.timeout(60_000);
    const resources = cleanup();
    let pair: Pair;

    before(async function () {
      const { start } = kind;
      if (start === undefined) return this.skip();
      pair = resources.add(await startPair({ ...kind, start }));
    });
    after(resources.stop);

    for (const { title, workflows } of chapters) {
      describe(title, () => {
        for (const workflow of workflows) {
          it(workflow.name, async () => {
            const repository = repositoryFor(`${title} ${workflow.name}`);
            const { fields, description } = await pair.run(workflow, repository);
            const known = knownDifferences(title, workflow.name, kind.name);
            const expected = known.flatMap((difference) => difference.fields);
            if (expected.includes("its own")) expect(fields).to.not.deep.equal([]);
            else expect(fields, description).to.deep.equal(expected);
          });
        }
      });
    }
  });
}
