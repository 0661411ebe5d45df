import { cleanup } from "../support/cleanup.ts";
import { properties } from "./properties.ts";

/** How many inputs of each kind; `npm run fuzz` takes more, and another seed. */
const inputs = 100;

describe("the fuzz: whatever is sent", function () {
  this.timeout(120_000);
  const resources = cleanup();
  afterEach(resources.stop);

  for (const { name, start } of properties) {
    it(`holds what has to hold: ${name}`, async () => {
      const started = resources.add(await start());
      await started.check({ seed: 1, numRuns: Math.ceil(inputs / started.inputsPerRun) });
    });
  }
});
