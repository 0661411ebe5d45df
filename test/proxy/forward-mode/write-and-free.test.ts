import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { expect } from "chai";
import { writeAndFree } from "../../../src/proxy/forward-mode/blind-tunnels.ts";

const chunkSize = 64 * 1024;

describe("writeAndFree()", () => {
  let server: Server;
  let sender: Socket;
  let received: Promise<Buffer>;

  beforeEach(async () => {
    server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    sender = connect((server.address() as AddressInfo).port, "127.0.0.1");
    const [receiver] = await once(server, "connection");
    received = buffer(receiver);
  });

  afterEach(async () => {
    sender.destroy();
    server.close();
    await once(server, "close");
  });

  it("frees chunks once they are out, and what arrives is what was written", async () => {
    const content = randomBytes(200 * chunkSize);
    const chunks = Array.from({ length: 200 }, (_, index) => {
      const chunk = Buffer.from(new ArrayBuffer(chunkSize));
      content.copy(chunk, 0, index * chunkSize);
      return chunk;
    });
    // All at once, so that most of them have to wait for their turn.
    for (const chunk of chunks) writeAndFree(sender, chunk);
    sender.end();
    expect((await received).equals(content)).to.equal(true);
    expect(chunks.filter(({ length }) => length > 0)).to.deep.equal([]);
  });

  it("leaves a buffer alone of which the chunk is but a part", async () => {
    const whole = Buffer.from(new ArrayBuffer(2 * chunkSize)).fill("x");
    writeAndFree(sender, whole.subarray(0, chunkSize));
    sender.end();
    expect((await received).length).to.equal(chunkSize);
    expect(whole.length).to.equal(2 * chunkSize);
  });

  it("leaves an empty buffer alone, since all who have one may share it", async () => {
    const empty = Buffer.alloc(0);
    writeAndFree(sender, empty);
    sender.end();
    await received;
    expect(empty.buffer).to.have.property("detached", false);
  });
});
