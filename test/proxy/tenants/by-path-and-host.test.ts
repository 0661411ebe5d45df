import { connect as connectTls } from "node:tls";
import { expect } from "chai";
import { rawRequest, statusesIn } from "../../support/raw-request.ts";
import { errorIn } from "../test-client.ts";
import { head, twoTenants } from "./two-tenants.ts";

describe("one tenant against another, by a path or a host", function () {
  this.timeout(20_000);
  const stage = twoTenants();

  describe("by a path", () => {
    const mine = "/v2/namespaces/team-a/connectors/attacker/";
    const theirs = "/v2/namespaces/team-a/connectors/victim/";
    const secret = "private/app/tags/list";
    const paths = [
      `${theirs}${secret}`,
      `${mine}../victim/${secret}`,
      `${mine}%2e%2e/victim/${secret}`,
      `${mine}..%2fvictim/${secret}`,
      `${mine}.%2e/victim/${secret}`,
      `${mine}app/../../victim/${secret}`,
      `${mine}app/..;/..;/victim/${secret}`,
      `${mine}app\\..\\..\\victim/${secret}`,
      `${mine}/../victim/${secret}`,
      `${mine}namespaces/team-a/connectors/victim/${secret}`,
      `${mine.slice(0, -1)}%00/../victim/${secret}`,
      `${mine}app%2f..%2f..%2fvictim%2f${secret}`,
      `${mine}%252e%252e/victim/${secret}`,
      `${theirs.replace("victim", "victi%6d")}${secret}`,
      `${theirs.replace("victim", "VICTIM")}${secret}`,
      `${theirs.replace("victim", "attacker,victim")}${secret}`,
      `/v2/namespaces/team-a/connectors/attacker/../../connectors/victim/${secret}`,
      `/v2//namespaces/team-a/connectors/victim/${secret}`,
      `//v2/namespaces/team-a/connectors/victim/${secret}`,
      `/V2/namespaces/team-a/connectors/victim/${secret}`,
      `${theirs}${secret}#${mine}`,
      `${theirs}${secret}?connector=attacker&namespace=team-a`,
      `${mine}app/tags/list?/../../victim/${secret}`,
      `http://c-victim.team-a.svc.cluster.local/v2/${secret}`,
      `http://${"127.0.0.1"}${theirs}${secret}`,
      `http://attacker@c-victim.team-a.svc${theirs}${secret}`,
    ];
    for (const path of paths) {
      it(`gets nothing: ${path}`, async () => {
        const host = "Host: c-attacker.team-a.svc.cluster.local";
        const request = head(path, host, stage.authorized(), "Connection: close");
        const { text } = await rawRequest({ port: stage.port() }, request);
        stage.expectNothingOfAlice(text);
        for (const { target } of stage.registry.requests) {
          expect(target.repository).to.not.match(/^private/);
        }
      });
    }

    it("can't tell a connector that is there from one that is not", async () => {
      const answers = await Promise.all(
        ["victim", "nobody"].map((name) =>
          stage.mallory("GET", `/v2/namespaces/team-a/connectors/${name}/private/app/tags/list`),
        ),
      );
      const shown = answers.map(({ status, body }) => [
        status,
        body.toString().replaceAll(/victim|nobody/g, "NAME"),
      ]);
      expect(shown[0]).to.deep.equal(shown[1]);
      expect(answers[0]?.status).to.equal(403);
    });

    it("names the repository of the own account, whatever it is called", async () => {
      const answer = await stage.mallory("GET", "private/app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("team-a/attacker");
      stage.expectNothingOfAlice(answer.body.toString());
    });
  });

  describe("by a host", () => {
    const hosts: readonly (readonly [string, readonly string[]])[] = [
      ["another's", ["Host: c-victim.team-a.svc"]],
      ["another's, with a port", ["Host: c-victim.team-a.svc:80"]],
      ["another's, in capitals", ["Host: C-VICTIM.team-a.svc"]],
      ["another's, from the root of DNS", ["Host: c-victim.team-a.svc."]],
      ["both, the own one first", ["Host: c-attacker.team-a.svc", "Host: c-victim.team-a.svc"]],
      ["both, the own one last", ["Host: c-victim.team-a.svc", "Host: c-attacker.team-a.svc"]],
      ["both in one", ["Host: c-attacker.team-a.svc, c-victim.team-a.svc"]],
      ["a user before it", ["Host: c-attacker.team-a.svc@c-victim.team-a.svc"]],
      ["another's, said by a proxy", ["Host: x", "X-Forwarded-Host: c-victim.team-a.svc"]],
      ["another's, in Forwarded", ["Host: x", "Forwarded: host=c-victim.team-a.svc"]],
      ["another's, as it was", ["Host: x", "X-Original-Host: c-victim.team-a.svc"]],
      ["another's, continued", ["Host: c-attacker.team-a.svc", " c-victim.team-a.svc"]],
      ["another's URL", ["Host: x", "X-Original-URL: /v2/private/app/tags/list"]],
    ];
    for (const [name, lines] of hosts) {
      it(`gets nothing: ${name}`, async () => {
        const request = head(
          "/v2/private/app/tags/list",
          ...lines,
          stage.authorized(),
          "Connection: close",
        );
        const { text } = await rawRequest({ port: stage.port() }, request);
        stage.expectNothingOfAlice(text);
        expect(statusesIn(text)).to.not.include(200);
      });
    }

    it("is no ground for a certificate, a name in TLS even less", async () => {
      const socket = connectTls({
        host: "127.0.0.1",
        port: Number(stage.proxy.https.split(":")[1]),
        servername: "c-victim.team-a.svc.cluster.local",
        ca: stage.proxy.surroundings.authority.certificate,
      });
      stage.undo.defer(() => socket.destroy());
      socket.write(
        head(
          "/v2/private/app/tags/list",
          "Host: c-victim.team-a.svc.cluster.local",
          stage.authorized(),
          "Connection: close",
        ),
      );
      let text = "";
      for await (const chunk of socket) text += chunk;
      expect(statusesIn(text)).to.deep.equal([403]);
      stage.expectNothingOfAlice(text);
    });
  });
});
