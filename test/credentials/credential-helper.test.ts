import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { createHelperRunner } from "../../src/credentials/credential-helper.ts";
import { LoginError } from "../../src/credentials/login.ts";
import { testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

describe("a credential helper", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let folder: string;

  beforeEach(() => {
    folder = resources.add(makeTempFolder("helpers")).path;
  });
  afterEach(resources.stop);

  const run = async (
    script: string,
    { address = "https://harbor.example.com:8443", timeoutMs = 10_000 } = {},
  ) => {
    const path = join(folder, "docker-credential-test");
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
    const runHelper = createHelperRunner({
      folder,
      environment: { PATH: process.env.PATH, HOME: folder },
      timeoutMs,
    });
    const signal = new AbortController().signal;
    return runHelper(
      { method: "execAuth", helper: "test" },
      testConnector("it", address),
      signal,
    ).catch((error: unknown) => error as LoginError);
  };
  const answer = (value: unknown): string => `cat <<'END'\n${JSON.stringify(value)}\nEND`;

  it("is asked for the registry's host on its standard input, with PATH and HOME alone", async () => {
    process.env.SECRET_OF_THE_PROCESS = "S3CR3T";
    resources.defer(() => delete process.env.SECRET_OF_THE_PROCESS);
    const script = `cat > "$HOME/input"; echo "$@" > "$HOME/arguments"; env > "$HOME/environment"; ${answer({ ServerURL: "x", Username: "robot", Secret: "pa:ss" })}`;
    expect(await run(script)).to.deep.equal({
      credential: { username: "robot", password: "pa:ss" },
      expiresAt: undefined,
    });
    const read = (file: string): Promise<string> => readFile(join(folder, file), "utf8");
    expect(await read("input")).to.equal("harbor.example.com:8443\n");
    expect(await read("arguments")).to.equal("get\n");
    const names = (await read("environment")).split("\n").map((line) => line.split("=")[0]);
    expect(
      names.filter((name) => !["", "_", "PWD", "SHLVL", "OLDPWD"].includes(name ?? "")).sort(),
    ).to.deep.equal(["HOME", "PATH"]);
  });

  it("is asked for Docker Hub by the key of docker itself", async () => {
    await run('cat > "$HOME/input"', { address: "https://docker.io" });
    expect(await readFile(join(folder, "input"), "utf8")).to.equal("https://index.docker.io/v1/\n");
  });

  it("gives an identity token by the user <token>", async () => {
    expect(await run(answer({ Username: "<token>", Secret: "refresh" }))).to.deep.equal({
      credential: { username: "<token>", password: "refresh", kind: "identityToken" },
      expiresAt: undefined,
    });
  });

  const failures: readonly [name: string, script: string, says: string][] = [
    [
      "ends with an exit code",
      "echo S3CR3T; echo S3CR3T >&2; exit 3",
      "has ended with exit code 3",
    ],
    [
      "has no login",
      "echo credentials not found in native keychain; exit 1",
      "says: credentials not found in native keychain",
    ],
    ["gives nothing", "true", "has given no {ServerURL, Username, Secret}"],
    ["gives other JSON", answer(["S3CR3T"]), "has given no {ServerURL, Username, Secret}"],
    ["gives an empty secret", answer({ Username: "S3CR3T", Secret: "" }), "has given no"],
    [
      "gives a secret that would end a header",
      answer({ Username: "a", Secret: "S3CR3T\n" }),
      "has given no",
    ],
    ["gives no end", "yes S3CR3T", "has given more than 65536 bytes"],
    ["is ended by a signal", "kill -9 $$", "has ended with a signal"],
  ];
  for (const [name, script, says] of failures) {
    it(`that ${name} gives no login, and the error says so`, async () => {
      const error = await run(script);
      expect(error).to.be.instanceOf(LoginError);
      expect(error).to.include({ fault: "HelperFailed" });
      const { message } = error as LoginError;
      expect(message).to.contain(`docker-credential-test ${says}`).and.not.contain("S3CR3T");
      expect(message).to.contain(
        `echo harbor.example.com:8443 | ${folder}/docker-credential-test get`,
      );
    });
  }

  it("that is not there gives no login", async () => {
    const runHelper = createHelperRunner({ folder, environment: {} });
    const { signal } = new AbortController();
    const error = await runHelper(
      { method: "execAuth", helper: "missing" },
      testConnector("it", "https://a.test"),
      signal,
    ).catch((reason: unknown) => reason as LoginError);
    expect((error as LoginError).message).to.contain("can't be run (ENOENT)");
  });

  it("that does not end is ended, with all that it has started", async () => {
    const error = await run('sleep 300 & echo $! > "$HOME/pid"; sleep 300', { timeoutMs: 500 });
    expect((error as LoginError).message).to.contain("has given nothing within 0.5 s");
    const pid = Number(await readFile(join(folder, "pid"), "utf8"));
    for (let time = 0; time < 50 && (await isRunning(pid)); time++) await sleep(20);
    expect(await isRunning(pid)).to.equal(false);
  });
});

/** Whether a process runs; one that has ended and that nobody has waited for does not. */
const isRunning = async (pid: number): Promise<boolean> => {
  const status = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return status !== "" && !/\) [ZX] /.test(status);
};
