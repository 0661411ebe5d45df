import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import {
  createTokenHandler,
  defaultIssuer,
  type Rights,
  readBasic,
} from "../../examples/standalone/token-server.ts";
import type { Stoppable } from "./cleanup.ts";

/** A token server that does what a test tells it to; everything but `realm` may be changed while it runs. */
export interface TestTokenServer extends Stoppable {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** PEM of the certificate that its tokens are checked by. */
  readonly certificate: string;
  readonly users: Map<string, string>;
  rights: Rights | undefined;
  /** Seconds. */
  lifetime: number;
  /** Milliseconds before it answers. */
  delay: number;
  /** Answers with this status in place of a token. */
  failWith: number | undefined;
  /** What it was asked, in order. */
  readonly requests: { readonly method: string; readonly url: URL; readonly user?: string }[];
  /** The tokens that it gave out. */
  readonly given: string[];
  stop(): Promise<void>;
}

/** Starts one on a loopback port, under the name `localhost`, which even wary clients accept in a realm. */
export async function startTestTokenServer(
  users: ReadonlyMap<string, string>,
): Promise<TestTokenServer> {
  const state = {
    service: "test-registry",
    issuer: defaultIssuer,
    users: new Map(users),
    rights: undefined as Rights | undefined,
    lifetime: 300,
    delay: 0,
    failWith: undefined as number | undefined,
    requests: [] as TestTokenServer["requests"],
    given: [] as string[],
  };
  const { handle, certificate } = await createTokenHandler({
    onToken: (token) => state.given.push(token),
    service: state.service,
    users: state.users,
    get lifetime() {
      return state.lifetime;
    },
    rights: (user, wanted) =>
      (state.rights ?? ((who) => (who === undefined ? [] : wanted.actions)))(user, wanted),
  });
  const server = createServer(async (request, response) => {
    const user = readBasic(request.headers.authorization)?.user;
    state.requests.push({
      method: request.method ?? "",
      url: new URL(request.url ?? "", "http://localhost"),
      ...(user === undefined ? {} : { user }),
    });
    if (state.delay > 0) await sleep(state.delay);
    if (state.failWith === undefined) handle(request, response);
    else response.writeHead(state.failWith).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return Object.assign(state, {
    certificate,
    realm: `http://localhost:${port}/token`,
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  });
}
