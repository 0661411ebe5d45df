import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { pluginScript } from "../../src/node/credential-provider.ts";
import { renderHostsToml } from "../../src/node/hosts-toml.ts";
import { cleanup } from "../support/cleanup.ts";
import { runProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

const token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl-_";

/** As kubelet 1.35.4 writes it: one line, the keys in this order. */
const question = (image: string, annotations?: Readonly<Record<string, string>>): string =>
  `${JSON.stringify({
    kind: "CredentialProviderRequest",
    apiVersion: "credentialprovider.kubelet.k8s.io/v1",
    image,
    serviceAccountToken: token,
    ...(annotations === undefined ? {} : { serviceAccountAnnotations: annotations }),
  })}\n`;

for (const shell of [["dash"], ["busybox", "sh"]]) {
  describe(`the kubelet's plug-in, run by ${shell.join(" ")}`, () => {
    const resources = cleanup();
    let certs: string;
    let script: string;

    before(async () => {
      const folder = resources.add(makeTempFolder("plugin")).path;
      certs = join(folder, "certs.d");
      script = join(folder, "plugin");
      await writeFile(script, pluginScript);
      for (const [host, content] of [
        ["harbor.example.com", renderHostsToml("https://10.96.0.7")],
        ["harbor.example.com:8443", renderHostsToml("https://10.96.0.7")],
        ["[fd00::1]:5000", renderHostsToml("https://10.96.0.7")],
        ["foreign.example.com", 'server = "https://foreign.example.com"\n'],
        ["empty.example.com", ""],
      ] as const) {
        await mkdir(join(certs, host), { recursive: true });
        await writeFile(join(certs, host, "hosts.toml"), content);
      }
      // What a host named by dots would lead to.
      await writeFile(join(certs, "hosts.toml"), renderHostsToml("https://10.96.0.7"));
    });
    after(resources.stop);

    /** Nothing but the shell is to be found, as on a host that has no more. */
    const ask = async (input: string): Promise<unknown> => {
      const [command = "", ...args] = shell;
      const path = command === "busybox" ? "/bin/busybox" : "/bin/dash";
      const { status, stdout, stderr } = await runProgram(path, [...args, script, certs], {
        input,
        env: { PATH: "/nonexistent" },
      });
      expect(stderr).to.equal("");
      expect(status).to.equal(0);
      expect(stdout.match(/\n/g)).to.have.length(1);
      const { auth, ...others } = JSON.parse(stdout);
      expect(others).to.deep.equal({
        kind: "CredentialProviderResponse",
        apiVersion: "credentialprovider.kubelet.k8s.io/v1",
        cacheKeyType: "Registry",
        cacheDuration: "0s",
      });
      return auth;
    };

    it("hands the token over where hosts.toml is ours", async () => {
      for (const host of ["harbor.example.com", "harbor.example.com:8443", "[fd00::1]:5000"]) {
        const login = { username: "connectors", password: token };
        expect(await ask(question(`${host}/app/web`))).to.deep.equal({ [host]: login });
      }
    });

    it("has no login where it is somebody else's, is empty, or is not there", async () => {
      for (const host of [
        "foreign.example.com",
        "empty.example.com",
        "none.example.com",
        "docker.io",
        "..",
        ".",
        "",
        "$(touch x)",
        "*",
        "harbor.example.co?",
      ]) {
        expect(await ask(question(`${host}/app/web`)), host).to.deep.equal({});
      }
    });

    it("puts the ServiceAccount's annotation into the user", async () => {
      const user = async (value: string): Promise<string | undefined> => {
        const annotations = { "connectors.cpaas.io/connector": value };
        const auth = await ask(question("harbor.example.com/app/web", annotations));
        return (auth as Record<string, { username: string }>)["harbor.example.com"]?.username;
      };
      expect(await user("harbor")).to.equal("connector=harbor");
      expect(await user("team-a/harbor")).to.equal("connector=team-a/harbor");
      expect(await user("")).to.equal("connectors");
      for (const odd of ["a b", 'a"b', "a\\b", "a:b", "$(id)", "`id`", "é", 'x","password":"y']) {
        expect(await user(odd), odd).to.equal("connector=?");
      }
    });

    it("takes no value for a key, whatever an annotation has in it", async () => {
      const value = '","image":"none.example.com/x","serviceAccountToken":"other","a":"';
      const auth = await ask(
        question("harbor.example.com/app/web", { "connectors.cpaas.io/connector": value }),
      );
      expect(auth).to.deep.equal({
        "harbor.example.com": { username: "connector=?", password: token },
      });
    });

    it("reads a question of several lines, and one whose last line has no end", async () => {
      for (const text of [
        question("harbor.example.com/app/web").trimEnd(),
        question("harbor.example.com/app/web").replace(
          ',"serviceAccountToken',
          ',\n"serviceAccountToken',
        ),
      ]) {
        expect(await ask(text)).to.have.all.keys("harbor.example.com");
      }
    });

    it("has no login without a token, with one that is none, and for nothing at all", async () => {
      const image = "harbor.example.com/app/web";
      for (const text of [
        question(image).replace(token, ""),
        question(image).replace(token, 'a\\"b'),
        question(image).replace(token, "a b"),
        JSON.stringify({ image }),
        "{}",
        "",
      ]) {
        expect(await ask(text), text).to.deep.equal({});
      }
    });
  });
}
