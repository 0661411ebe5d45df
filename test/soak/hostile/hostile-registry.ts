import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** The registry of a tenant who wants to harm others. What it does depends on the repository's first component. */
export interface HostileRegistry {
  readonly url: string;
}

const kibibyte = 1024;
/** Lengths of tokens: some that nobody takes, some that nobody keeps, and some that are kept. */
const tokenSizes = [120 * kibibyte, 60 * kibibyte, 15 * kibibyte];

/** Query names of an upload's Location: as many as fit into a head, and as many as fit into 8 KiB. */
const locationQueries = [7_500, 1_300].map((names) =>
  Array.from({ length: names }, (_, index) => `r${index}`).join("&"),
);

const mebibyte = 1024 * kibibyte;
/** The blob of the repository `blobs`: so many MiB of zeros. */
const blobMebibytes = 16;
const zeros = Buffer.alloc(mebibyte);

/** The digest of the blob of the repository `blobs`. */
export function blobDigest(): string {
  const hash = createHash("sha256");
  for (let count = 0; count < blobMebibytes; count += 1) hash.update(zeros);
  return `sha256:${hash.digest("hex")}`;
}

function respondForBlob(request: IncomingMessage, response: ServerResponse): void {
  if (request.method === "GET") {
    sendBlob(response);
    return;
  }
  // An upload is answered once all of it has come.
  const location = "/v2/blobs/blobs/uploads/1";
  request.once("end", () => response.writeHead(202, { location }).end());
}

function sendBlob(response: ServerResponse): void {
  response.writeHead(200, { "content-length": blobMebibytes * mebibyte });
  let sent = 0;
  const send = (): void => {
    sent += 1;
    if (sent === blobMebibytes) response.end(zeros);
    else response.write(zeros, (error) => error ?? send());
  };
  send();
}

/** @param onRequest is called for every request */
export async function startHostileRegistry(
  address: string,
  onRequest: () => void,
): Promise<HostileRegistry> {
  let turn = 0;
  const server = createServer({ maxHeaderSize: 512 * kibibyte }, (request, response) => {
    onRequest();
    turn += 1;
    request.resume();
    respond(request, response, turn);
  });
  server.listen(0, address);
  await once(server, "listening");
  const url = `http://${address}:${(server.address() as AddressInfo).port}`;

  function respond(request: IncomingMessage, response: ServerResponse, number: number): void {
    const { method, headers } = request;
    const path = `${request.url}`;
    if (path.startsWith("/silent")) return;
    if (path.startsWith("/token")) {
      const token = "t".repeat(elementAt(tokenSizes, number));
      response.end(JSON.stringify({ token, expires_in: 3600 }));
    } else if (path.startsWith("/v2/tokens") && headers.authorization === undefined) {
      const challenge = `Bearer realm="${url}/token",service="hostile"`;
      response.writeHead(401, { "www-authenticate": challenge }).end();
    } else if (path.startsWith("/v2/blobs/blobs/")) {
      respondForBlob(request, response);
    } else if (path.includes("/blobs/uploads/")) {
      const location = `${pathOf(path)}u?${elementAt(locationQueries, number)}`;
      response.writeHead(uploadStatus(method), { location, range: "0-0" }).end();
    } else {
      response.writeHead(404, { "content-type": "application/json" }).end('{"errors":[]}');
    }
  }
  return { url };
}

const uploadStatus = (method = ""): number => (method === "GET" ? 204 : 202);

const pathOf = (target: string): string => target.slice(0, `${target}?`.indexOf("?"));

/** The elements take turns. */
function elementAt<T>(list: readonly T[], number: number): T {
  const element = list[number % list.length];
  if (element === undefined) throw new TypeError("the list is empty");
  return element;
}
