import { expect } from "chai";
import { readCommand } from "../../src/config/command.ts";
import type { Checked } from "../../src/connector/problem.ts";
import { render as renderVolume } from "../../src/roles/render.ts";
import { runCommand } from "./ci-host.ts";

describe("oci-connector render: what a volume would hold", () => {
  const render = (...args: readonly string[]): Checked<string> => {
    const context = { workingDirectory: "/", group: 0, uid: 0, environment: {} };
    const command = readCommand(["render", "--connectors=team-a/harbor", ...args], context);
    if (!command.ok || command.value.name !== "render") throw new Error(JSON.stringify(command));
    return renderVolume(command.value.settings);
  };
  const rendered = (...args: readonly string[]): string => {
    const text = render(...args);
    if (!text.ok) throw new Error(JSON.stringify(text.problems));
    return text.value;
  };

  it("is every file with its name", () => {
    const text = rendered("--configuration=docker-config,!.env");
    const names = [...text.matchAll(/^==> (.*) <==$/gm)].map(([, name]) => name);
    expect(names).to.include.members(["context.token", "ca.crt", "config.json", "https.proxy"]);
    expect(names).not.to.include(".env");
    expect(text).to.contain("==> context.token <==\nTOKEN-OF-THE-VOLUME\n");
  });

  it("is one file as it is, to be written to one", () => {
    const config = rendered("--configuration=docker-config", "config.json");
    expect(JSON.parse(config)).to.deep.equal({
      auths: {
        "c-harbor.team-a.svc.cluster.local": {
          auth: Buffer.from("connectors:TOKEN-OF-THE-VOLUME").toString("base64"),
        },
      },
    });
    expect(rendered("--cluster-domain=k8s.example", "connector.status.proxyAddress")).to.equal(
      "http://c-harbor.team-a.svc.k8s.example/namespaces/team-a/connectors/harbor",
    );
  });

  it("names the proxy of a machine, and mirrors, as a CI host has them", () => {
    const text = rendered(
      "--configuration=registries-conf",
      "--proxy=http://[::1]:5080",
      "--proxy=[::1]:5443",
      '--params={"registries-conf":{"mirror":true}}',
      "--image-host=harbor.example.com",
      "registries.conf",
    );
    expect(text).to.contain('prefix = "harbor.example.com"');
    expect(text).to.contain('location = "[::1]:5443/namespaces/team-a/connectors/harbor"');
  });

  it("names the files that there are to whoever wants others, with the code of wrong usage", async () => {
    const run = (...args: readonly string[]) =>
      runCommand(["render", "--connectors=team-a/harbor", ...args]);
    const [file, left] = await Promise.all([
      run("config.json", "ca.crt", "nope"),
      run("--configuration=!config.json"),
    ]);
    for (const { status, stdout } of [file, left]) {
      expect({ status, stdout }).to.deep.equal({ status: 64, stdout: "" });
    }
    expect(file.stderr)
      .to.match(/FILE: found "config.json", wanted a file of this volume: .*context.token/)
      .and.include('FILE: found "nope"');
    expect(left.stderr).to.include('--configuration: found "!config.json", wanted a file of');
  });
});
