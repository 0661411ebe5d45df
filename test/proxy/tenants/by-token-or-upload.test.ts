import { expect } from "chai";
import { sha256 } from "../../support/oci-image.ts";
import type { PlainResponse } from "../../support/plain-request.ts";
import { openRaw, rawRequest, statusesIn } from "../../support/raw-request.ts";
import { basicAuth, clientOf, type TestClient } from "../test-client.ts";
import { head, login, secretBlob, secretDigest, twoTenants } from "./two-tenants.ts";

describe("one tenant against another, by a token or an upload", function () {
  this.timeout(20_000);
  const stage = twoTenants();

  describe("by a token", () => {
    it("of the own connector beside another's gets nothing, in either order", async () => {
      const stolen = basicAuth("not-the-token-of-alice");
      for (const lines of [
        [stage.authorized(), `Authorization: ${stolen}`],
        [`Authorization: ${stolen}`, stage.authorized()],
        [`Authorization: ${stage.mallory.authorization}, ${stolen}`],
        [stage.authorized(), `Proxy-Authorization: ${stolen}`],
        [`Proxy-Authorization: ${stage.mallory.authorization}`],
        [`Authorization : ${stage.mallory.authorization}`],
        [`Cookie: token=${stage.mallory.token}`],
        ["Connection: close, authorization", stage.authorized()],
      ]) {
        const path = `${stage.alice.base}private/app/tags/list`;
        const { text } = await rawRequest(
          { port: stage.port() },
          head(path, "Host: x", "Connection: close", ...lines),
        );
        stage.expectNothingOfAlice(text);
        expect(statusesIn(text)[0]).to.be.oneOf([400, 401, 403]);
      }
    });

    it("is asked for at every request of a connection, also behind another's", async () => {
      const connection = stage.undo.add(await openRaw({ port: stage.port() }));
      const path = `${stage.alice.base}app/tags/list`;
      const ask = (...lines: readonly string[]): string => head(path, "Host: x", ...lines);
      connection.send(
        ask(`Authorization: ${stage.alice.authorization}`) + ask() + ask(stage.authorized()),
      );
      await connection.waitFor(/HTTP\/1.1 403[\s\S]*}/);
      expect(statusesIn(connection.received())).to.deep.equal([200, 401, 403]);
    });

    it("ends with its right, also on a connection that is open", async () => {
      const { identities } = stage.proxy.surroundings;
      const token = stage.proxy.token("victim");
      const connection = stage.undo.add(await openRaw({ port: stage.port() }));
      const ask = head(
        `${stage.alice.base}app/tags/list`,
        "Host: x",
        `Authorization: Bearer ${token}`,
      );
      connection.send(ask);
      await connection.waitFor(/HTTP\/1.1 200/);
      const identity = identities.get(token);
      if (identity) identities.set(token, { ...identity, connectors: [] });
      connection.send(ask);
      await connection.waitFor(/HTTP\/1.1 403/);
      identities.delete(token);
      connection.send(ask);
      await connection.waitFor(/HTTP\/1.1 401/);
    });
  });

  describe("by what the registry gave another", () => {
    it("never uses another's registry token, or its knowledge of the registry", async () => {
      expect((await stage.alice("GET", "private/app/tags/list")).status).to.equal(200);
      stage.registry.requests.length = 0;
      const answer = await stage.mallory("GET", "private/app/tags/list");
      expect(answer.status).to.equal(403);
      stage.expectNothingOfAlice(answer.body.toString());
      expect(stage.seen()).to.include("mallory");
    });

    it("never uses another's connection", async () => {
      await Promise.all(
        [1, 2, 3].flatMap(() =>
          [stage.alice, stage.mallory].map((send) => send("GET", "app/tags/list")),
        ),
      );
      for (let count = 0; count < 3; count++) {
        await stage.alice("GET", "app/tags/list");
        await stage.mallory("GET", "app/tags/list");
        await stage.alice("POST", "app/blobs/uploads/", { body: "x" });
        await stage.mallory("POST", "app/blobs/uploads/", { body: "x" });
      }
      const ports = Map.groupBy(
        stage.registry.requests.filter(stage.userOf),
        ({ remotePort }) => remotePort,
      );
      expect(ports.size).to.be.above(1);
      for (const requests of ports.values()) {
        expect(new Set(requests.map(stage.userOf)).size).to.equal(1);
      }
    });

    it("gets nothing by being a connector of the same name, once the other is gone", async () => {
      const name = "reborn";
      stage.proxy.connect(name, stage.registry.url, login("alice"));
      const client = clientOf(stage.proxy, name);
      expect((await client("GET", "private/app/tags/list")).status).to.equal(200);
      const begun = await client("POST", "private/app/blobs/uploads/");
      expect(begun.status).to.equal(202);
      stage.registry.requests.length = 0;
      stage.proxy.connect(name, stage.registry.url, login("mallory"));
      const answer = await client("GET", "private/app/tags/list");
      expect(answer.status).to.equal(403);
      const put = await client("PUT", `${begun.headers.location}&digest=${secretDigest}`, {
        body: secretBlob,
      });
      expect(put.status).to.be.oneOf([403, 503]);
      stage.expectNothingOfAlice(answer.body.toString() + put.body.toString());
    });

    it("does not lock another out by a credential that is refused", async () => {
      const wrong = { credential: { username: "alice", password: "not-her-password" } };
      stage.proxy.connect("wrong", stage.registry.url, wrong);
      const client = clientOf(stage.proxy, "wrong");
      for (let count = 0; count < 3; count++) {
        expect((await client("GET", "app/tags/list")).status).to.equal(403);
      }
      stage.proxy.connect("right", stage.registry.url, login("alice"));
      expect((await clientOf(stage.proxy, "right")("GET", "app/tags/list")).status).to.equal(200);
    });
  });

  describe("by an upload", () => {
    const finish = (send: TestClient, location: string): Promise<PlainResponse> =>
      send("PUT", `${location}&digest=${sha256(Buffer.from("x"))}`, { body: "x" });

    it("that is another's gets nothing, wherever it is asked for", async () => {
      const { headers } = await stage.alice("POST", "app/blobs/uploads/");
      const location = headers.location ?? "";
      const [path = "", session = ""] = location.split("?_state=");
      stage.registry.requests.length = 0;
      const paths = [
        location,
        location.replace("/victim/", "/attacker/"),
        `${path}?_state=x&_state=${session}`,
        `${stage.mallory.base}app/blobs/uploads/1?_state=${session}=`,
        ...[session, `1?_state=${session}`, `1?_state=${session.slice(0, -2)}`].flatMap((end) => [
          `${stage.mallory.base}private/app/blobs/uploads/${end}`,
          `${stage.mallory.base}app/blobs/uploads/${end}`,
        ]),
      ];
      const answers = await Promise.all(
        paths.flatMap((path) => [
          ...["GET", "DELETE"].map((method) => stage.mallory(method, path)),
          stage.mallory("PATCH", path, { body: "x" }),
          finish(stage.mallory, path),
        ]),
      );
      for (const { status } of answers) expect(status).to.be.oneOf([403, 404]);
      expect(stage.registry.requests).to.deep.equal([]);
    });

    it("goes on nowhere else, whatever is added to its URL", async () => {
      stage.registry.uploadLocation = "state";
      stage.undo.defer(() => {
        stage.registry.uploadLocation = "relative";
      });
      const begun = await stage.mallory("POST", "app/blobs/uploads/");
      const location = begun.headers.location;
      // The registry's own _state stands in the sealed one, so a second one is none that was given out.
      stage.registry.requests.length = 0;
      for (const query of ["_state=forged", "%5fstate=forged", "_state=forged&_state"]) {
        const answer = await stage.mallory("PATCH", `${location}&${query}`, { body: "x" });
        expect(answer.status).to.equal(404);
      }
      expect(stage.registry.requests).to.deep.equal([]);
    });
  });

  describe("by a mount", () => {
    const prefix = "namespaces/team-a/connectors/victim/";
    const froms = [
      `mount=${secretDigest}&from=${prefix}private/app`,
      `mount=${secretDigest}&from=${encodeURIComponent(`${prefix}private/app`)}`,
      `mount=${secretDigest}&fr%6fm=${prefix}private/app`,
      `m%6Funt=${secretDigest}&from=private/app`,
      `mount=${secretDigest}&from=private/app`,
      `mount=${secretDigest}&from=app&from=private/app`,
      `mount=${secretDigest}&from=private%2Fapp&from=app`,
      `mount=${secretDigest}&from=../victim/private/app`,
      `mount=${secretDigest}&from=private/app&origin=c-victim.team-a.svc`,
      `mount=${secretDigest}&from[]=private/app`,
      `mount=${secretDigest};from=private/app`,
      `mount=${secretDigest}`,
    ];
    for (const query of froms) {
      it(`gets nothing: ${query.replace(secretDigest, "<digest>")}`, async () => {
        stage.registry.features.anonymousMounts = false; // a registry that has them checks the account itself
        const answer = await stage.mallory("POST", `app/blobs/uploads/?${query}`, {
          headers: { "content-length": "0" },
        });
        expect(answer.status).to.equal(query.includes(";") ? 400 : 202);
        stage.expectNothingOfAlice(answer.body.toString());
        expect(stage.registry.repository("app").blobs.size).to.equal(0);
      });
    }
  });
});
