/**
 * A registry that takes uploads and throws them away, in a process of its own: it counts bytes and
 * does nothing else, so that a registry's hashing doesn't hide what a proxy costs. It reads a head,
 * then as many bytes as that says, and answers. Prints its port.
 *
 *   node bench/upload-sink.ts
 */
import { type AddressInfo, createServer, type Socket } from "node:net";

const server = createServer(serve).listen(0, "127.0.0.1", () => {
  process.stdout.write(`listening on ${(server.address() as AddressInfo).port}\n`);
});

const endOfHead = "\r\n\r\n";

function serve(socket: Socket): void {
  let head = "";
  let bodyLeft = 0;
  let answer = "";
  const readHead = (chunk: Buffer): void => {
    head += chunk.toString("latin1");
    const end = head.indexOf(endOfHead);
    if (end < 0) return;
    const received = head.length - end - endOfHead.length;
    answer = answerTo(head.slice(0, end));
    bodyLeft = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0) - received;
    head = "";
    if (bodyLeft === 0) socket.write(answer);
  };
  socket.on("data", (chunk) => {
    if (bodyLeft === 0) return readHead(chunk);
    bodyLeft -= chunk.length;
    if (bodyLeft === 0) socket.write(answer);
  });
  socket.on("error", () => socket.destroy());
}

/** Nobody gets in without a login, whichever it is. */
function answerTo(head: string): string {
  const [method = "", path = ""] = head.split(" ", 2);
  const [status, ...headers] = /\r\nauthorization: */i.test(head)
    ? (answers[method] ?? ["405 Method Not Allowed"])
    : ["401 Unauthorized", 'WWW-Authenticate: Basic realm="bench"'];
  const lines = headers.map((header) => header.replace("<path>", path));
  return [`HTTP/1.1 ${status}`, ...lines, "Content-Length: 0", "", ""].join("\r\n");
}

const answers: Readonly<Record<string, readonly string[]>> = {
  GET: ["200 OK"],
  POST: ["202 Accepted", "Location: <path>session"],
  PUT: ["201 Created"],
};
