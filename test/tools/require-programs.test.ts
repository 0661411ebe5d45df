import { expect } from "chai";
import { missingPrograms } from "../../tools/require-programs.ts";
import { runProgram } from "../support/program.ts";

const script = new URL("../../tools/require-programs.ts", import.meta.url).pathname;

describe("tools/require-programs.ts", function () {
  this.timeout(20_000);

  it("says which programs are missing, folders and plain files too", () => {
    expect(missingPrograms(["sh", "no-such-program", "../share", "../etc/passwd"])).to.deep.equal([
      "no-such-program",
      "../share",
      "../etc/passwd",
    ]);
  });

  it("prints nothing where nothing is missing", async () => {
    const outcome = await runProgram(process.execPath, [script, "sh", "cat"]);
    expect(outcome).to.include({ status: 0, stdout: "", stderr: "" });
  });
});
