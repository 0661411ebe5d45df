import { join } from "node:path";
import { expect } from "chai";
import { runProgram, systemPath } from "../support/program.ts";

const file = join(import.meta.dirname, "../../tools/cluster-ability.ts");

describe("tools/cluster-ability.ts", () => {
  it("says why no cluster can be run by somebody who is root in a user namespace alone", async () => {
    const program = `import { whyNoCluster } from ${JSON.stringify(file)}; process.stdout.write(whyNoCluster() ?? "it can");`;
    const node = [process.execPath, "--input-type=module-typescript", "--eval", program];
    const unshare = ["--user", "--map-root-user", ...node];
    const outcome = await runProgram("unshare", unshare, { env: { PATH: systemPath } });
    expect(outcome.stdout, outcome.stderr).to.equal("containers need the machine's root");
  });
});
