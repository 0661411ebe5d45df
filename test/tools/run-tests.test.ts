import { readdirSync, readFileSync } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type ProgramOptions, runProgram, startProgram, systemPath } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

const root = join(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  readonly scripts: Readonly<Record<string, string>>;
};

/** The arguments of sh by which npm runs a script: what stands behind `--` is appended. */
const npmScript = (name: string, ...args: string[]): string[] => [
  "-c",
  `exec ${scripts[name]} "$@"`,
  "sh",
  ...args,
];

const options: ProgramOptions = {
  cwd: root,
  env: { PATH: `${join(root, "node_modules/.bin")}:${systemPath}` },
};

/** The files whose tests a script would run, by mocha's own report. */
async function filesRun(name: string, ...args: string[]): Promise<readonly string[]> {
  const dryRun = ["--dry-run", "--reporter", "json"];
  const outcome = await runProgram("sh", npmScript(name, ...dryRun, ...args), options);
  expect(outcome.status, outcome.stdout + outcome.stderr).to.equal(0);
  const { tests } = JSON.parse(outcome.stdout) as { readonly tests: readonly { file: string }[] };
  return [...new Set(tests.map(({ file }) => relative(root, file)))].sort();
}

describe("npm test", function () {
  this.timeout(60_000);
  const resources = cleanup();
  afterEach(resources.stop);

  it("runs the files that are named, and no other", async () => {
    const files = ["test/log.test.ts", "test/version.test.ts"];
    expect(await filesRun("test", ...files)).to.deep.equal(files);
    expect(await filesRun("test", "test/tools")).to.include("test/tools/run-tests.test.ts");
  });

  it("runs the tests of every file whose names match --grep", async () => {
    const files = await filesRun("test", "--grep", "^(the version|cleanup\\(\\)) ");
    expect(files).to.deep.equal(["test/support/cleanup.test.ts", "test/version.test.ts"]);
  });

  it("leaves out the suites that have scripts of their own", async () => {
    const files = await filesRun("test");
    expect(files).to.include("test/main.test.ts");
    expect(files.filter((file) => file.startsWith("test/cluster/"))).to.deep.equal([]);
    expect(files).not.to.include("test/conformance/conformance.test.ts");
    expect(files).not.to.include("test/clients/clients.test.ts");
  });

  it("runs a file again after a change, by test:watch", async () => {
    const { path } = resources.add(makeTempFolder("watch"));
    const file = join(path, "watched.test.ts");
    await writeFile(file, `describe("watched", () => { it("is old", () => {}); });\n`);
    const args = npmScript("test:watch", "--watch-files", `${path}/*.ts`, file);
    const watch = resources.add(await startProgram("sh", args, options));
    await watch.waitFor(/is old.*1 passing.*waiting for changes/s);
    await writeFile(file, `describe("watched", () => { it("is new", () => {}); });\n`);
    await watch.waitFor(/is new.*1 passing.*waiting for changes/s);
  });
});

/** Mounts something, starts a program with a child of its own, and waits to be ended. */
const endlessTest = (folder: string): string => `
  import { execFileSync } from "node:child_process";
  import { writeFileSync } from "node:fs";
  import { makeTempFolder } from "${root}/test/support/temp-folder.ts";
  import { startProgram } from "${root}/test/support/program.ts";
  it("never ends", async () => {
    const { path } = makeTempFolder();
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", path]);
    writeFileSync("${folder}/log", "");
    await startProgram("sh", ["-c", "tail -f ${folder}/log & wait"]);
    await new Promise((resolve) => setTimeout(resolve, 1_000_000));
  });`;

/** The command lines of all processes with a text in them. */
const commandsWith = (text: string): readonly string[] =>
  readdirSync("/proc")
    .map(commandLine)
    .filter((line) => line.includes(text));

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return ""; // it has ended, or is no process
  }
}

describe("a run of tests that is ended from outside", function () {
  this.timeout(60_000);
  const resources = cleanup();
  afterEach(resources.stop);

  for (const signal of ["SIGKILL", "SIGTERM", "SIGINT"] as const) {
    it(`leaves nothing for longer than until the next run, after ${signal}`, async () => {
      const folder = resources.add(makeTempFolder("ended")).path;
      const temporary = join(folder, "tmp");
      await mkdir(temporary);
      const file = join(folder, "endless.test.ts");
      await writeFile(file, endlessTest(folder));
      const own = { ...options, env: { ...options.env, TMPDIR: temporary } };
      const run = resources.add(await startProgram("sh", npmScript("test", file), own));
      const log = `${folder}/log`;
      await eventually(
        () => commandsWith(log).some((line) => line.startsWith("tail")),
        () => `the test has not begun: ${run.output()}`,
      );
      expect(await readdir(temporary)).to.have.length(1);
      run.signal(signal);
      await run.ended;
      await eventually(
        () => commandsWith(log).length === 0,
        () => `still runs: ${commandsWith(log)}`,
      );
      if (signal !== "SIGKILL") expect(await readdir(temporary)).to.deep.equal([]);
      const next = await runProgram("sh", npmScript("test", "test/version.test.ts"), own);
      expect(next.status, next.stdout + next.stderr).to.equal(0);
      expect(await readdir(temporary)).to.deep.equal([]);
      expect(readFileSync("/proc/self/mounts", "utf8")).not.to.include(temporary);
    });
  }
});
