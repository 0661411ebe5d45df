/**
 * What runs in a Pod of a test, from a ConfigMap, in the program's own image. It reads the volume's token before each request,
 * and takes a new connection for each, as short-lived tools do.
 *
 *   node pod-client.ts loop URL             GETs it again and again, writes a line after the first answer, and at SIGTERM what became of all
 *   node pod-client.ts push URL BYTES RATE  uploads so many noisy bytes to a repository, so many bytes a second
 */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { type IncomingMessage, request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

const [mode = "", url = "", bytes = "0", rate = "0"] = process.argv.slice(2);
const tell = (line: object): boolean => process.stdout.write(`${JSON.stringify(line)}\n`);
await (mode === "loop" ? loop() : push(Number(bytes), Number(rate)));

async function send(
  method: string,
  target: string | URL,
  headers: Readonly<Record<string, string>> = {},
  body?: Readable,
): Promise<IncomingMessage & { readonly size: number }> {
  const token = readFileSync("/run/connectors/context.token", "utf8").trim();
  const authorization = `Bearer ${token}`;
  const request = new URL(target).protocol === "https:" ? tlsRequest : plainRequest;
  const ca = readFileSync("/run/connectors/ca.crt");
  const options = { method, ca, agent: false as const, headers: { authorization, ...headers } };
  return new Promise((resolve, reject) => {
    const sent = request(target, options, (response) => {
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.length;
      });
      response.on("end", () => resolve(Object.assign(response, { size })));
      response.on("error", reject);
    });
    sent.on("error", reject);
    if (body === undefined) sent.end();
    else body.pipe(sent);
  });
}

async function loop(): Promise<void> {
  const failures: string[] = [];
  let count = 0;
  let longest = 0;
  let isOver = false;
  process.on("SIGTERM", () => {
    isOver = true;
  });
  while (!isOver) {
    const begin = performance.now();
    count += 1;
    try {
      const { statusCode, size } = await send("GET", url);
      if (statusCode !== 200 || size === 0) failures.push(`${statusCode} of ${size} B`);
    } catch (error) {
      failures.push(`${error}`);
    }
    longest = Math.max(longest, performance.now() - begin);
    if (count === 1) tell({ answered: url });
    await sleep(50);
  }
  tell({ count, failures, longest: Math.round(longest) });
}

async function push(total: number, perSecond: number): Promise<void> {
  const hash = createHash("sha256");
  const block = randomBytes(1024 * 1024);
  async function* content(): AsyncGenerator<Buffer> {
    const begin = performance.now();
    for (let sent = 0; sent < total; sent += block.length) {
      block.writeUInt32LE(sent / block.length, 0);
      hash.update(block);
      yield Buffer.from(block);
      await sleep(Math.max(0, (sent / perSecond) * 1000 - (performance.now() - begin)));
    }
  }
  const location = (response: IncomingMessage): URL => {
    if (response.statusCode !== 202) throw new Error(`${response.statusCode}`);
    return new URL(response.headers.location ?? "", url);
  };
  const started = location(await send("POST", `${url}/blobs/uploads/`, { "content-length": "0" }));
  tell({ pushing: total });
  const type = { "content-type": "application/octet-stream", "content-length": `${total}` };
  const end = location(await send("PATCH", started, type, Readable.from(content())));
  const digest = `sha256:${hash.digest("hex")}`;
  end.searchParams.set("digest", digest);
  const { statusCode } = await send("PUT", end, { "content-length": "0" });
  tell({ pushed: digest, status: statusCode });
  if (statusCode !== 201) process.exitCode = 1;
}
