import { connect, type Socket } from "node:net";

/** Milliseconds between two looks, and how many in a row have to find nothing new. Looks are counted, since a machine may stop for longer. */
const [look, quietLooks] = [20, 5];

/**
 * Sends each of these texts over a connection of its own, all at once, a byte for a character.
 * @returns what came back, until nothing more did on any of them
 */
export function sendBytes(port: number, texts: readonly string[]): Promise<readonly string[]> {
  return new Promise((resolve) => {
    const received = texts.map((): Buffer[] => []);
    const open = new Set<Socket>();
    let news = 0;
    let [seen, quiet] = [0, 0];
    for (const [index, text] of texts.entries()) {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      open.add(socket);
      socket
        .on("error", () => {})
        .on("data", (chunk: Buffer) => {
          news += 1;
          received[index]?.push(chunk);
        })
        .once("connect", () => {
          news += 1;
        })
        .once("close", () => {
          news += 1;
          open.delete(socket);
        });
      socket.write(Buffer.from(text, "latin1"));
    }
    const timer = setInterval(() => {
      quiet = news === seen ? quiet + 1 : 0;
      seen = news;
      if (open.size > 0 && quiet < quietLooks) return;
      clearInterval(timer);
      for (const socket of open) socket.destroy();
      resolve(received.map((chunks) => Buffer.concat(chunks).toString("latin1")));
    }, look);
  });
}
