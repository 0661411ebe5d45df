import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Stoppable } from "../support/cleanup.ts";

/** Somewhere that requests may arrive, with what has arrived. */
export interface RecordingServer extends Stoppable {
  /** `127.0.0.1:34567` */
  readonly host: string;
  readonly arrived: IncomingMessage[];
}

export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Answers once a body has come to its end, whatever it is. */
export async function startRecordingServer(answer: Answer): Promise<RecordingServer> {
  const arrived: IncomingMessage[] = [];
  const server = createServer({ requestTimeout: 0 }, (request, response) => {
    arrived.push(request);
    request.on("error", () => response.destroy());
    request.once("end", () => answer(request, response)).resume();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    host: `127.0.0.1:${port}`,
    arrived,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
