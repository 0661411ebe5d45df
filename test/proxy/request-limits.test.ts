import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import type { Identity } from "../../src/connector/platform.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { type PlainResponse, plainRequest } from "../support/plain-request.ts";
import { openRaw, statusesIn } from "../support/raw-request.ts";
import { askConnect, proxyAuth } from "./forward-mode/connect-client.ts";
import { clientOf, errorIn } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const mebibyte = 1024 * 1024;

describe("the proxy's limits of what one tenant may ask for", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  /** Lets the registry answer. */
  let answer: () => void;
  let waiting: number;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry());
    proxy = resources.add(
      await startTestProxy({
        limits: {
          maxRequestsPerSubject: 3,
          maxRequestsPerNamespace: 5,
          maxRequestsPerConnector: 4,
          maxTunnelsPerSubject: 3,
          maxTunnelsPerNamespace: 4,
          maxHeldBytes: 5 * mebibyte,
          maxHeldBytesPerSubject: 2 * mebibyte,
          maxHeldBytesPerNamespace: 3 * mebibyte,
          maxHeldBytesPerConnector: 4 * mebibyte,
        },
      }),
    );
    proxy.connect("harbor", registry.url);
    proxy.connect("other", registry.url);
    const gate = Promise.withResolvers<void>();
    answer = gate.resolve;
    waiting = 0;
    registry.on("GET tags", async ({ fail }) => {
      waiting += 1;
      await gate.promise;
      return fail(404, "NAME_UNKNOWN");
    });
  });
  afterEach(resources.stop);

  const list = (name: string, token: string): Promise<PlainResponse> =>
    clientOf(proxy, name, { token })("GET", "app/tags/list");
  const underWay = (count: number): Promise<unknown> =>
    eventually(
      () => waiting === count,
      () => `${waiting} requests are under way`,
    );

  it("hold for a volume, whichever connectors it uses, and not for its neighbours", async () => {
    const [greedy, modest] = [proxy.token("harbor", "other"), proxy.token("harbor")];
    const begun = [list("harbor", greedy), list("harbor", greedy), list("other", greedy)];
    await underWay(3);
    const refused = await list("other", greedy);
    expect(refused.status).to.equal(429);
    expect(refused.headers["retry-after"]).to.equal("2");
    expect(errorIn(refused)).to.include({ code: "TOOMANYREQUESTS" });
    begun.push(list("harbor", modest));
    await underWay(4);
    answer();
    for (const response of await Promise.all(begun)) expect(response.status).to.equal(404);
    expect((await list("other", greedy)).status).to.equal(404);
  });

  it("hold for a connector, whoever uses it", async () => {
    const tokens = [proxy.token("harbor"), proxy.token("harbor", "other"), proxy.token("harbor")];
    const begun = [0, 0, 1, 1].map((index) => list("harbor", tokens[index] ?? ""));
    await underWay(4);
    expect((await list("harbor", tokens[2] ?? "")).status).to.equal(429);
    begun.push(list("other", tokens[1] ?? ""));
    await underWay(5);
    answer();
    await Promise.all(begun);
  });

  it("count no request whose client went away", async () => {
    const token = proxy.token("harbor");
    const abort = new AbortController();
    const client = clientOf(proxy, "harbor", { token });
    const gone = [1, 2, 3].map(() =>
      client("GET", "app/tags/list", { signal: abort.signal }).catch(() => "gone"),
    );
    await underWay(3);
    abort.abort();
    await Promise.all(gone);
    answer();
    await eventually(
      async () => (await list("harbor", token)).status === 404,
      () => "they still count",
    );
  });

  /** A token of a Pod in a namespace. */
  const ofPod = (namespace: string, ...names: readonly string[]): string => {
    const token = proxy.token(...names);
    const identity = proxy.surroundings.identities.get(token);
    if (identity === undefined) throw new Error("the token is unknown");
    const user = `system:serviceaccount:${namespace}:builder`;
    const pod = { namespace, name: token.slice(0, 8) };
    proxy.surroundings.identities.set(token, { ...identity, user, pod });
    return token;
  };
  /** A token of a ServiceAccount that is bound to no Pod. */
  const ofAccount = (namespace: string, ...names: readonly string[]): string => {
    const token = ofPod(namespace, ...names);
    const { pod: _pod, ...identity } = proxy.surroundings.identities.get(token) ?? {};
    proxy.surroundings.identities.set(token, identity as Identity);
    return token;
  };

  it("hold for a namespace, however many Pods it has, and not for others", async () => {
    const begun = [
      list("harbor", ofPod("team-b", "harbor")),
      list("harbor", ofPod("team-b", "harbor")),
      list("other", ofPod("team-b", "other")),
      list("other", ofAccount("team-b", "other")),
      list("other", ofAccount("team-b", "other")),
    ];
    await underWay(5);
    for (const token of [ofPod("team-b", "harbor"), ofAccount("team-b", "harbor")]) {
      const refused = await list("harbor", token);
      expect(refused.status).to.equal(429);
      expect(errorIn(refused).message).to.include("of this namespace");
    }
    begun.push(list("harbor", ofPod("team-c", "harbor")), list("other", proxy.token("other")));
    await underWay(7);
    answer();
    for (const response of await Promise.all(begun)) expect(response.status).to.equal(404);
    expect((await list("harbor", ofPod("team-b", "harbor"))).status).to.equal(404);
  });

  it("come before rights, connectors and rules", async () => {
    const token = proxy.token("harbor");
    const begun = [1, 2, 3].map(() => list("harbor", token));
    await underWay(3);
    proxy.surroundings.away = "mayUse";
    expect((await list("none", token)).status).to.equal(429);
    proxy.surroundings.away = "findConnector";
    expect((await list("harbor", token)).status).to.equal(429);
    proxy.surroundings.away = undefined;
    expect((await clientOf(proxy, "harbor", { token })("GET", "/v2/")).status).to.equal(200);
    const forwarded = await plainRequest(`http://${proxy.http}/`, {
      target: `${registry.url}/v2/app/tags/list`,
      headers: { "proxy-authorization": proxyAuth(token, "harbor", "other") },
    });
    expect(forwarded.status).to.equal(429);
    answer();
    await Promise.all(begun);
    expect((await list("none", token)).status).to.equal(403);
  });

  it("count no request whose client went away while it was asked who it is", async () => {
    const token = proxy.token("harbor");
    const identity = proxy.surroundings.identities.get(token);
    const gate = Promise.withResolvers<void>();
    const slow = resources.add(
      await startTestProxy({
        replicaOf: proxy,
        limits: { maxRequestsPerSubject: 1 },
        verifyToken: async () => {
          await gate.promise;
          return identity === undefined
            ? { ok: false, reason: "none" }
            : { ok: true, value: identity };
        },
      }),
    );
    const abort = new AbortController();
    const client = clientOf(slow, "harbor", { token });
    const gone = client("GET", "app/tags/list", { signal: abort.signal }).catch(() => "gone");
    await sleep(50);
    abort.abort();
    await gone;
    await sleep(50);
    gate.resolve();
    answer();
    await sleep(50);
    expect((await client("GET", "app/tags/list")).status).to.equal(404);
  });

  it("hold for the tunnels of a namespace", async () => {
    proxy.connect("secure", "https://harbor.test");
    const connectTo = async (credential: string): Promise<number> =>
      resources.add(await askConnect(proxy, { to: "harbor.test:443", credential })).status;
    const credentials = [1, 2].map(() => proxyAuth(ofPod("team-b", "secure"), "secure"));
    for (const credential of [...credentials, ...credentials]) {
      expect(await connectTo(credential)).to.equal(200);
    }
    expect(await connectTo(proxyAuth(ofPod("team-b", "secure"), "secure"))).to.equal(429);
    expect(await connectTo(proxyAuth(ofPod("team-c", "secure"), "secure"))).to.equal(200);
  });

  describe("on the manifests that are held", () => {
    let arrived: number;
    let refuse: () => void;
    beforeEach(() => {
      arrived = 0;
      const gate = Promise.withResolvers<void>();
      refuse = gate.resolve;
      registry.on("PUT manifest", async ({ fail }) => {
        arrived += 1;
        await gate.promise;
        return fail(400, "MANIFEST_INVALID");
      });
    });
    const push = (name: string, size: number, token?: string): Promise<PlainResponse> =>
      clientOf(proxy, name, { ...(token !== undefined && { token }) })("PUT", "app/manifests/1", {
        body: Buffer.alloc(size, " "),
      });
    const held = (count: number): Promise<unknown> =>
      eventually(
        () => arrived === count,
        () => `${arrived} have arrived`,
      );
    /** The share that a push is refused for. */
    const refusal = async (pushed: Promise<PlainResponse>): Promise<string> => {
      const response = await pushed;
      expect(response.status).to.equal(429);
      return errorIn(response).message;
    };

    it("hold for a subject, a namespace, a connector and for all, and let them go", async () => {
      const greedy = ofPod("team-b", "harbor", "other");
      const begun = [push("harbor", 1.5 * mebibyte, greedy)];
      await held(1);
      expect(await refusal(push("other", mebibyte, greedy))).to.include("of this volume");
      begun.push(push("harbor", 1.4 * mebibyte, ofPod("team-b", "harbor")));
      await held(2);
      expect(await refusal(push("other", mebibyte, ofPod("team-b", "other")))).to.include(
        "of this namespace",
      );
      begun.push(push("harbor", mebibyte, ofPod("team-c", "harbor")));
      await held(3);
      expect(await refusal(push("harbor", mebibyte, ofPod("team-d", "harbor")))).to.include(
        "of this connector",
      );
      begun.push(push("other", mebibyte, ofPod("team-d", "other")));
      await held(4);
      const message = await refusal(push("other", mebibyte, ofPod("team-e", "other")));
      expect(message).to.equal("too many pushes are sending manifests");
      refuse();
      for (const response of await Promise.all(begun)) expect(response.status).to.equal(400);
      expect((await push("other", 1.9 * mebibyte, greedy)).status).to.equal(400);
    });

    it("count what has come, and not what is announced", async () => {
      const slow = resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
      const client = clientOf(proxy, "harbor", { token: proxy.token("harbor") });
      const head = [
        `PUT ${client.base}app/manifests/1 HTTP/1.1`,
        "Host: x",
        `Authorization: ${client.authorization}`,
        `Content-Length: ${8 * mebibyte}`,
      ];
      slow.send(`${head.join("\r\n")}\r\n\r\nabc`);
      await sleep(50);
      refuse();
      const own = await push("harbor", 1.9 * mebibyte, client.token);
      expect(own.status).to.equal(400);
    });

    it("hold for a body of many small chunks, which is taken together", async () => {
      const body = Readable.from(
        (function* bytes(): Generator<Buffer> {
          for (let count = 0; count < 100_000; count += 1) yield Buffer.from("x");
        })(),
      );
      refuse();
      const pushed = await clientOf(proxy, "harbor")("PUT", "app/manifests/1", { body });
      expect(pushed.status).to.equal(400);
      const [sent] = registry.requests.filter(({ method }) => method === "PUT");
      expect(Number(sent?.headers["content-length"])).to.equal(100_000);
    });

    it("end a body that does not come in time, however it trickles", async () => {
      const strict = resources.add(
        await startTestProxy({ replicaOf: proxy, manifestTimeoutMs: 300 }),
      );
      const slow = resources.add(await openRaw({ port: Number(strict.http.split(":")[1]) }));
      const client = clientOf(strict, "harbor");
      const head = [
        `PUT ${client.base}app/manifests/1 HTTP/1.1`,
        "Host: x",
        `Authorization: ${client.authorization}`,
        "Content-Length: 1000",
      ];
      slow.send(`${head.join("\r\n")}\r\n\r\n`);
      const trickle = setInterval(() => slow.send("x"), 50);
      resources.defer(() => clearInterval(trickle));
      const text = await slow.waitFor(/}$/);
      expect(statusesIn(text)).to.deep.equal([408]);
      expect(text).to.include("did not arrive within");
      expect(arrived).to.equal(0);
      refuse();
      expect((await push("harbor", 1000)).status).to.equal(400);
    });
  });
});
