import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { expect } from "chai";
import type { AccessRule } from "../../../src/connector/access-rules.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { type PlainResponse, plainRequest } from "../../support/plain-request.ts";
import { rawRequest } from "../../support/raw-request.ts";
import { errorIn } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";
import { connectHead, connectTlsInside, proxyAuth } from "./connect-client.ts";

describe("several connectors of one host, in the forward proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  const users = { alice: "secret-of-alice", bob: "secret-of-bob", carol: "secret-of-carol" };

  beforeEach(async () => {
    registry = resources.add(
      await startFakeRegistry({ auth: "basic", tls: true, hostname: "harbor.test", users }),
    );
    proxy = resources.add(
      await startTestProxy({
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
  });
  afterEach(resources.stop);

  const connect = (
    name: keyof typeof users,
    rules?: readonly Partial<AccessRule>[],
    basePath = "",
  ): void => {
    proxy.connect(name, registry.url + basePath, {
      credential: { username: name, password: users[name] },
      caCertificates: [registry.ca ?? ""],
      params: rules === undefined ? [] : [{ name: "rules", value: JSON.stringify(rules) }],
    });
  };

  /** Sends requests through one CONNECT, by a client that has named these connectors. */
  async function inside(...names: readonly string[]) {
    const credential = proxyAuth(proxy.token(...names), ...names);
    const socket = await connectTlsInside(proxy, { to: registry.host, credential });
    resources.defer(() => socket.destroy());
    return async (method: string, path: string, body?: Buffer): Promise<PlainResponse> => {
      const { pathname, search } = new URL(path, registry.url);
      const headers = { host: registry.host, connection: "keep-alive" };
      const createConnection = () => socket;
      const request = httpRequest({ createConnection, method, path: pathname + search, headers });
      request.end(body);
      const [answer] = (await once(request, "response")) as [IncomingMessage];
      const chunks = await answer.toArray();
      const { statusCode = 0, rawHeaders, complete } = answer;
      return {
        status: statusCode,
        phrase: answer.statusMessage ?? "",
        headers: answer.headers,
        rawHeaders,
        complete,
        body: Buffer.concat(chunks),
      };
    };
  }
  /** The user of the registry's last request. */
  const user = (): string | undefined => {
    const { authorization = "" } = registry.requests.at(-1)?.headers ?? {};
    return Buffer.from(authorization.replace("Basic ", ""), "base64").toString().split(":")[0];
  };

  it("each get the repositories that their rules have, within one connection", async () => {
    connect("alice", [{ verbs: ["push"], repositories: ["project-a/**"] }]);
    connect("bob", [{ verbs: ["push"], repositories: ["project-b/**"] }]);
    const ask = await inside("alice", "bob");
    for (const [project, owner] of [
      ["project-a", "alice"],
      ["project-b", "bob"],
      ["project-a", "alice"],
    ] as const) {
      await ask("GET", `/v2/${project}/app/tags/list`);
      expect(user()).to.equal(owner);
      const blob = noise(project, 10_000);
      const begun = await ask("POST", `/v2/${project}/app/blobs/uploads/`);
      const patched = await ask("PATCH", String(begun.headers.location), blob);
      expect(user()).to.equal(owner);
      const put = await ask("PUT", `${patched.headers.location}&digest=${sha256(blob)}`);
      expect(put.status).to.equal(201);
      expect(user()).to.equal(owner);
    }
  });

  it("are chosen by what a request does, too", async () => {
    connect("alice", [{ verbs: ["pull"], repositories: ["**"] }]);
    connect("bob", [{ verbs: ["push"], repositories: ["project-b/**"] }]);
    const ask = await inside("alice", "bob");
    await ask("GET", "/v2/project-b/app/tags/list");
    expect(user()).to.equal("alice");
    await ask("POST", "/v2/project-b/app/blobs/uploads/");
    expect(user()).to.equal("bob");
    await ask("GET", "/v2/_catalog");
    expect(user()).to.equal("alice");
  });

  it("are chosen by the right to push, where those rights are separate", async () => {
    connect("alice");
    connect("bob");
    proxy.surroundings.readOnly.add("team-a/alice");
    const ask = await inside("alice", "bob");
    await ask("GET", "/v2/app/tags/list");
    expect(user()).to.equal("alice");
    await ask("POST", "/v2/app/blobs/uploads/");
    expect(user()).to.equal("bob");
  });

  it("are the first one that was named, where no rule decides", async () => {
    connect("alice");
    connect("bob");
    for (const names of [
      ["alice", "bob"],
      ["bob", "alice"],
    ]) {
      const ask = await inside(...names);
      await ask("GET", "/v2/project-b/app/tags/list");
      expect(user()).to.equal(names[0]);
    }
  });

  it("are the one with the longest base path before all", async () => {
    connect("alice");
    connect("bob", undefined, "/base");
    connect("carol", [{ verbs: ["pull"], repositories: ["mine/**"] }], "/base");
    const ask = await inside("carol", "alice", "bob");
    for (const [path, owner] of [
      ["/v2/mine/app/tags/list", "alice"],
      ["/base/v2/mine/app/tags/list", "carol"],
      ["/base/v2/other/app/tags/list", "bob"],
    ] as const) {
      await ask("GET", path);
      expect(user(), path).to.equal(owner);
    }
  });

  it("refuse what no rule of theirs lets, and say which is the first", async () => {
    connect("alice", [{ verbs: ["push"], repositories: ["project-a/**"] }]);
    connect("bob", [{ verbs: ["push"], repositories: ["project-b/**"] }]);
    const ask = await inside("bob", "alice");
    const answer = await ask("GET", "/v2/project-c/app/tags/list");
    expect(answer.status).to.equal(403);
    expect(errorIn(answer).message).to.contain("the rules of the connector team-a/bob don't let");
    expect(registry.requests).to.deep.equal([]);
  });
});

describe("a client of the forward proxy that speaks another scheme than its connector's address", () => {
  const resources = cleanup();
  let proxy: TestProxy;

  beforeEach(async () => {
    proxy = resources.add(
      await startTestProxy({
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
    proxy.connect("plain", "http://plain.test:5000");
    proxy.connect("default", "http://default.test");
    proxy.connect("secure", "https://secure.test:8443");
    proxy.connect("other", "https://other.test");
  });
  afterEach(resources.stop);

  const connectTo = async (to: string, token = proxy.token()): Promise<string> => {
    const names = ["plain", "default", "secure", "other"];
    const port = Number(proxy.http.split(":")[1]);
    const credential = proxyAuth(token, ...names);
    return (await rawRequest({ port }, connectHead({ to, credential }))).text;
  };

  it("https to one that is http hears that, and what to do", async () => {
    for (const [to, name, address] of [
      ["plain.test:5000", "plain", "http://plain.test:5000"],
      ["default.test:443", "default", "http://default.test"],
      ["default.test:80", "default", "http://default.test"],
    ] as const) {
      const text = await connectTo(to);
      expect(text).to.contain(
        `HTTP/1.1 403 the address of the connector team-a/${name} is http (${address}), and the client speaks https`,
      );
      expect(text).to.contain("let the client use plain HTTP for that host");
      expect(text).to.not.contain("127.0.0.1");
    }
  });

  it("http to one that is https hears that", async () => {
    for (const host of ["secure.test:8443", "other.test"]) {
      const headers = { "proxy-authorization": proxyAuth(proxy.token(), "secure", "other") };
      const target = `http://${host}/v2/app/tags/list`;
      const answer = await plainRequest(`http://${proxy.http}/`, { target, headers });
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain(
        `is https (https://${host}), and the client speaks http`,
      );
    }
  });

  it("hears nothing of a connector that it may not use, or at another port", async () => {
    expect(await connectTo("plain.test:5000", proxy.token("other"))).to.contain("plain.test is at");
    expect(await connectTo("plain.test:443")).to.contain("plain.test is at");
    expect(await connectTo("plain.test:5001")).to.contain("plain.test is at");
  });
});
