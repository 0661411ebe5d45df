import { expect } from "chai";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { noise } from "../../support/oci-image.ts";
import { openRaw } from "../../support/raw-request.ts";
import { clientOf } from "../test-client.ts";
import { head, login, twoTenants } from "./two-tenants.ts";

describe("one tenant against another, by a registry of the own", function () {
  this.timeout(20_000);
  const stage = twoTenants();

  describe("by a registry of the own", () => {
    it("that answers more than it was asked gives nobody a wrong answer", async () => {
      const evil = stage.undo.add(await startFakeRegistry());
      const forged = '{"name":"app","tags":["forged"]}';
      stage.undo.defer(
        evil.on("GET tags", ({ request }) => {
          const body = '{"name":"app","tags":["first"]}';
          const answer = (content: string): string =>
            `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${content.length}\r\n\r\n${content}`;
          request.socket.write(answer(body) + answer(forged));
        }),
      );
      stage.proxy.connect("evil", evil.url);
      const first = clientOf(stage.proxy, "evil");
      const second = clientOf(stage.proxy, "evil");
      for (let count = 0; count < 5; count++) {
        const answers = await Promise.all([
          first("GET", "app/tags/list").catch(() => undefined), // its connection may end early
          stage.alice("GET", "app/tags/list"),
          second("GET", "app/tags/list").catch(() => undefined),
        ]);
        for (const answer of answers) expect(String(answer?.body)).to.not.contain("forged");
        expect(answers[1]?.body.toString()).to.contain("of-all");
      }
    });

    it("that is slow takes no one else's time", async () => {
      const evil = stage.undo.add(await startFakeRegistry());
      stage.undo.defer(evil.on("* *", () => new Promise(() => {}), "before auth"));
      stage.proxy.connect("slow", evil.url);
      const slow = clientOf(stage.proxy, "slow");
      const abort = new AbortController();
      const waiting = Array.from({ length: 100 }, () =>
        slow("GET", "app/tags/list", { signal: abort.signal }).catch(() => undefined),
      );
      for (let count = 0; count < 20; count++) {
        expect((await stage.alice("GET", "app/tags/list")).status).to.equal(200);
      }
      abort.abort();
      await Promise.all(waiting);
    });

    it("that sends its uploads to another's registry gets no one's account there", async () => {
      const evil = stage.undo.add(await startFakeRegistry({ hostname: "localhost" }));
      const elsewhere = `${stage.registry.url}/v2/private/app/blobs/uploads/1`;
      stage.undo.defer(evil.on("POST uploads", ({ send }) => send(202, { Location: elsewhere })));
      stage.proxy.connect("evil", evil.url, login("mallory"));
      const answer = await clientOf(stage.proxy, "evil")("POST", "app/blobs/uploads/");
      expect(answer.status).to.equal(502);
      expect(answer.headers.location).to.equal(undefined);
      expect(stage.registry.requests).to.deep.equal([]);
    });

    it("that redirects to another's registry gets no one's account there", async () => {
      const evil = stage.undo.add(await startFakeRegistry({ hostname: "localhost" }));
      const elsewhere = `${stage.registry.url}/v2/private/app/tags/list`;
      stage.undo.defer(evil.on("GET tags", ({ send }) => send(307, { Location: elsewhere })));
      const params = [{ name: "allowedRedirectHosts", value: "127.0.0.1" }];
      stage.proxy.connect("evil", evil.url, { ...login("mallory"), params });
      const answer = await clientOf(stage.proxy, "evil")("GET", "app/tags/list");
      expect(answer.status).to.be.above(400);
      expect(stage.registry.requests.map(({ headers }) => headers.authorization)).to.deep.equal([
        undefined,
      ]);
      stage.expectNothingOfAlice(answer.body.toString());
    });
  });

  it("by manifests that are never whole, takes no one else's room for them", async () => {
    const size = 7 * 1024 * 1024;
    const connections = await Promise.all(
      Array.from({ length: 12 }, () => openRaw({ port: stage.port() })),
    );
    for (const connection of connections) {
      stage.undo.add(connection);
      connection.send(
        head(
          `PUT ${stage.mallory.base}app/manifests/1`,
          ...["Host: x", stage.authorized(), `Content-Length: ${size + 1}`],
        ),
      );
      connection.send(noise("manifest", size));
    }
    const answered = connections.map(({ waitFor }) => waitFor(/HTTP\/1.1 429/).catch(() => ""));
    expect((await Promise.any(answered)).length).to.be.above(0);
    const answer = await stage.alice("PUT", "app/manifests/1", {
      headers: { "content-type": "application/vnd.oci.image.manifest.v1+json" },
      body: '{"schemaVersion":2,"layers":[],"config":{"digest":""}}',
    });
    expect(answer.status).to.not.equal(429);
  });
});
