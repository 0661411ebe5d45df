import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { createLog, type LogFields } from "../src/log.ts";
import { runProgram } from "./support/program.ts";
import { makeTempFolder } from "./support/temp-folder.ts";

describe("the log", () => {
  const lineOf = (fields?: LogFields): Record<string, unknown> => {
    let line = "";
    const log = createLog(
      (text) => {
        line += text;
      },
      () => 0,
    );
    log("info", "hello", fields);
    expect(line).to.match(/^[^\n]+\n$/);
    return JSON.parse(line);
  };
  const head = { time: "1970-01-01T00:00:00.000Z", level: "info", message: "hello" };

  it("is a line of JSON for each message, without fields that are undefined", () => {
    expect(lineOf()).to.deep.equal(head);
    const fields = { status: 200, reason: undefined, repository: "a\nb" };
    expect(lineOf(fields)).to.deep.equal({ ...head, status: 200, repository: "a\nb" });
  });

  it("shows of an error its names, codes and messages, and nothing that it carries", () => {
    const cause = Object.assign(new Error("no way"), { code: "EHOSTUNREACH", password: "hidden" });
    const error = Object.assign(new TypeError("failed", { cause }), { headers: "hidden" });
    const said = "TypeError: failed, caused by Error EHOSTUNREACH: no way";
    expect(lineOf({ error })).to.deep.equal({ ...head, error: said });
  });

  it("tells the code of an error once, where the message has it, too", () => {
    const message = "ENOENT: no such file or directory, open 'x'";
    const error = Object.assign(new Error(message), { code: "ENOENT" });
    expect(lineOf({ error })).to.deep.equal({ ...head, error: `Error: ${message}` });
    const other = Object.assign(new Error("12 failed"), { code: 1 });
    expect(lineOf({ error: other })).to.deep.equal({ ...head, error: "Error 1: 12 failed" });
  });

  it("shows an error whose causes are a circle, and does not throw", () => {
    const error = new Error("round");
    error.cause = error;
    expect(lineOf({ error })).to.deep.equal({ ...head, error: "an error that can't be described" });
  });

  describe("of a process", () => {
    const module = JSON.stringify(new URL("../src/roles/process-log.ts", import.meta.url).href);
    const argumentsOf = (script: string): readonly string[] => {
      const setup = `import { createProcessLog } from ${module};`;
      return ["--input-type=module", "--eval", `${setup} ${script}`];
    };
    /** Runs a script, and gives what is on its stderr. */
    async function stderrOf(script: string): Promise<string> {
      const { stderr, timedOut } = await runProgram(process.execPath, argumentsOf(script));
      expect(timedOut).to.equal(false);
      return stderr;
    }
    const messages = (stderr: string): readonly string[] =>
      [...stderr.matchAll(/"message":"([^"]*)"/g)].map(([, message = ""]) => message);

    it("is written once in a turn of the event loop, in order", async () => {
      const counted = await stderrOf(`
        let writes = 0;
        const write = (bytes) => {
          writes += 1;
          process.stderr.write(bytes);
          return bytes.length;
        };
        const { log } = createProcessLog({ write, maxWriteBytes: 65536 });
        for (let line = 0; line < 100; line += 1) log("info", "line " + line);
        setTimeout(() => {
          log("info", "later");
          setTimeout(() => log("info", "writes: " + writes), 10);
        }, 10);
      `);
      const lines = Array.from({ length: 100 }, (_, line) => `line ${line}`);
      expect(messages(counted)).to.deep.equal([...lines, "later", "writes: 2"]);
    });

    const begin = "const { log } = createProcessLog();";
    const ends = {
      "process.exit": `process.exit(1);`,
      "an exception": `throw new Error("own mistake");`,
      "a rejection": `await Promise.reject(new Error("own mistake"));`,
      "a signal that is handled": `
        process.on("SIGTERM", () => { log("info", "last"); process.exit(1); });
        process.kill(process.pid, "SIGTERM");
        setTimeout(() => {}, 60_000);
      `,
    };
    for (const [name, end] of Object.entries(ends)) {
      it(`loses no line before ${name}`, async () => {
        const written = messages(await stderrOf(`${begin} log("info", "first"); ${end}`));
        expect(written[0]).to.equal("first");
        expect(written.at(-1)).to.equal(name.includes("signal") ? "last" : "first");
      });
    }

    const many = 5000;
    const manyLines = `${begin} for (let line = 0; line < ${many}; line += 1) log("info", "x".repeat(100)); process.exit(0);`;

    it("is whole in a file", async () => {
      const folder = makeTempFolder();
      try {
        const file = join(folder.path, "log");
        const intoFile = ["-c", 'exec "$@" 2> "$0"', file, process.execPath];
        await runProgram("sh", [...intoFile, ...argumentsOf(manyLines)]);
        expect(messages(await readFile(file, "utf8"))).to.have.length(many);
      } finally {
        await folder.stop();
      }
    });

    for (const [kind, setup] of [
      ["a pipe", ""],
      ["a pipe that does not block", "process.stderr;"],
    ] as const) {
      it(`is whole in ${kind} whose reader is late`, async () => {
        const late = '("$@" 2>&1) | (sleep 0.3; cat)';
        const args = argumentsOf(`${setup} ${manyLines}`);
        const { stdout } = await runProgram("sh", ["-c", late, "sh", process.execPath, ...args]);
        expect(messages(stdout)).to.have.length(many);
      });
    }

    it("is whole in a pipe with lines that a pipe takes in parts only", async () => {
      const late = '("$@" 2>&1) | (sleep 0.3; cat)';
      const lines = `${begin} for (let line = 0; line < 20; line += 1) log("info", "x".repeat(30_000)); process.exit(0);`;
      const args = argumentsOf(lines);
      const { stdout } = await runProgram("sh", ["-c", late, "sh", process.execPath, ...args]);
      const lengths = stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line).message.length);
      expect(lengths).to.deep.equal(Array.from({ length: 20 }, () => 30_000));
    });

    const unwritable = {
      "a pipe that nobody reads": 'mkfifo "$0/pipe"; exec "$@" 2<> "$0/pipe"',
      "a pipe whose reader is gone":
        '("$@"; echo $? > "$0/status") 2>&1 >&3 3>&- | true; exit $(cat "$0/status")',
      "a full disk": 'exec "$@" 2> /dev/full',
      "a stderr that is closed": 'exec "$@" 2>&-',
    };
    for (const [kind, shell] of Object.entries(unwritable)) {
      for (const [name, { end, status }] of Object.entries({
        "process.exit": { end: "process.exit(7);", status: 7 },
        "an exception": { end: `throw new Error("own mistake");`, status: 1 },
        "its last task": { end: "", status: 0 },
      })) {
        it(`into ${kind} does not keep a process from its end by ${name}`, async () => {
          const folder = makeTempFolder();
          try {
            const script = `${begin} for (let line = 0; line < ${many}; line += 1) log("info", "x".repeat(100));
              setTimeout(() => { process.stdout.write("alive"); ${end} }, 50);`;
            const command = ["-c", `exec 3>&1; ${shell}`, folder.path, process.execPath];
            const outcome = await runProgram("sh", [...command, ...argumentsOf(script)], {
              timeout: 20_000,
            });
            expect(outcome).to.include({ stdout: "alive", status, timedOut: false });
          } finally {
            await folder.stop();
          }
        });
      }
    }

    it("into a socket that nobody reads does not keep a process from its end", async () => {
      const script = `${begin} for (let line = 0; line < ${many}; line += 1) log("info", "x".repeat(100));
        setTimeout(() => { process.stdout.write("alive"); process.exit(7); }, 50);`;
      // The stderr that Node gives to a child is a socket, and nothing reads it without a listener.
      const child = spawn(process.execPath, argumentsOf(script), {
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 20_000,
      });
      let stdout = "";
      child.stdout.on("data", (chunk) => {
        stdout += chunk;
      });
      const [status] = await once(child, "exit");
      expect({ stdout, status }).to.deep.equal({ stdout: "alive", status: 7 });
    });
  });
});
