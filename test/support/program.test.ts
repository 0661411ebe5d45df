import { readFileSync } from "node:fs";
import { expect } from "chai";
import { eventually } from "./eventually.ts";
import { runProgram, startProgram } from "./program.ts";

/** A process that nobody has reaped yet is dead all the same. */
const isAlive = (pid: number): boolean => {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};

describe("programs that tests run", function () {
  this.timeout(20_000);

  it("come to their end with the test run, even one that is killed", async () => {
    const code = `
      const { startProgram } = await import(${JSON.stringify(import.meta.resolve("./program.ts"))});
      const { pid } = await startProgram("sleep", ["1000"]);
      process.stdout.write("started " + pid + "\\n");
      setInterval(() => {}, 1000);`;
    const parent = await startProgram(process.execPath, ["--input-type=module", "-e", code]);
    const pid = Number((await parent.waitFor(/started (\d+)/))[1]);
    // Once it is the program itself, the kernel has been told.
    const isTied = (): boolean => readFileSync(`/proc/${pid}/comm`, "utf8") === "sleep\n";
    await eventually(isTied, () => "sleep has not begun");
    process.kill(parent.pid, "SIGKILL");
    await eventually(
      () => !isAlive(pid),
      () => `${pid} still runs`,
    );
    await parent.stop();
  });

  it("get no environment of ours, and are killed with their children when they take too long", async () => {
    const outcome = await runProgram("sh", ["-c", "env; sleep 1000 & echo $!; wait"], {
      env: { A: "b" },
      timeout: 500,
    });
    expect(outcome).to.include({ timedOut: true, status: undefined });
    const lines = outcome.stdout.trim().split("\n");
    const names = lines.filter((line) => line.includes("=")).map((line) => line.split("=")[0]);
    expect(names).to.have.members(["A", "PATH", "PWD"]);
    await eventually(
      () => !isAlive(Number(lines.at(-1))),
      () => "its child still runs",
    );
  });
});
