import type { FakeRegistry } from "./fake-registry.ts";
import type { Undo } from "./hostile-auth.ts";

/** Sends whoever begins an upload to another place, such as another host. */
export const sendUploadsTo = (registry: FakeRegistry, location: string): Undo =>
  registry.on("POST uploads", ({ send }) =>
    send(202, { Location: location, Range: "0-0", "Docker-Upload-UUID": "elsewhere" }),
  );

/**
 * Answers before it has read the body, and reads none of it; the connection stays open, or is
 * closed once the answer is out.
 */
export const answerUploadsEarly = (
  registry: FakeRegistry,
  status: number,
  end: "open" | "close" = "open",
): Undo =>
  onBody(registry, ({ request, response }) => {
    request.pause();
    const body = JSON.stringify({ errors: [{ code: "DENIED", message: "early" }] });
    response.writeHead(status, { "Content-Length": body.length }).write(body, () => {
      // `end` would have Node read the rest of the request.
      if (end === "close") response.destroy();
    });
  });

/** Resets the connection once so many bytes of a body have come. */
export const resetUploads = (registry: FakeRegistry, bytes: number): Undo =>
  onBody(registry, ({ request, record }) => {
    request.on("data", (chunk: Buffer) => {
      record.bodyLength += chunk.length;
      if (record.bodyLength >= bytes) request.socket.resetAndDestroy();
    });
  });

/** Reads so many bytes of a body, and then no more. */
export const stallUploads = (registry: FakeRegistry, bytes: number): Undo =>
  onBody(registry, ({ request, record }) => {
    request.on("data", (chunk: Buffer) => {
      record.bodyLength += chunk.length;
      if (record.bodyLength >= bytes) request.pause();
    });
  });

/** Redirects the bodies of uploads, to another place of the same registry or elsewhere. */
export const redirectUploads = (registry: FakeRegistry, location: string, status = 307): Undo =>
  onBody(registry, ({ send }) => send(status, { Location: location }));

function onBody(registry: FakeRegistry, handler: Parameters<FakeRegistry["on"]>[1]): Undo {
  const undo = [registry.on("PATCH upload", handler), registry.on("PUT upload", handler)];
  return () => {
    for (const action of undo) action();
  };
}
