import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { noise } from "../../support/oci-image.ts";
import { clientOf } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const stallTimeoutMs = 500;

describe("a client of the proxy that is slow to read its answer", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const blob = noise("blob", 50_000_000); // more than the kernel buffers on two connections
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let registrySide: Socket | undefined;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy({ stallTimeoutMs }));
    proxy.connect("harbor", registry.url);
    registry.on("GET manifest", ({ request, response, send }) => {
      registrySide = response.socket ?? undefined;
      if (request.headers["x-request-id"] === undefined) return send(200, {}, blob);
      setTimeout(() => send(200, {}, Buffer.from("late")), stallTimeoutMs * 3);
    });
  });
  after(resources.stop);

  const ask = async (...lines: readonly string[]): Promise<Socket> => {
    const { base, authorization } = clientOf(proxy, "harbor");
    const socket = connect(Number(proxy.http.split(":")[1]), "127.0.0.1");
    resources.defer(() => socket.destroy());
    socket.on("error", () => {});
    const head = [
      `GET ${base}app/manifests/large HTTP/1.1`,
      "Host: x",
      `Authorization: ${authorization}`,
      "Connection: close",
      ...lines,
      "",
      "",
    ];
    socket.pause().write(head.join("\r\n"));
    await once(socket, "connect");
    return socket;
  };

  it("is ended where it stops, and so is the registry's answer", async () => {
    await ask();
    await eventually(
      () => registrySide?.destroyed,
      () => "the registry's connection is still open",
    );
  });

  it("is waited for while it goes on", async () => {
    const socket = await ask();
    let received = 0;
    // A tenth of the blob, and rest, which is shorter than the limit on any machine that tests pass on.
    socket.on("data", (chunk: Buffer) => {
      const before = received;
      received += chunk.length;
      const isTenth = Math.floor(before / 5_000_000) !== Math.floor(received / 5_000_000);
      if (isTenth) setTimeout(() => socket.resume(), stallTimeoutMs / 4);
      if (isTenth) socket.pause();
    });
    socket.resume();
    await once(socket, "close");
    expect(received).to.be.above(blob.length);
  });

  it("is not at fault where the registry is slower", async () => {
    const socket = await ask("X-Request-Id: slow");
    let text = "";
    for await (const chunk of socket.resume()) text += chunk;
    expect(text).to.match(/^HTTP\/1.1 200 [\s\S]*late$/);
  });
});
