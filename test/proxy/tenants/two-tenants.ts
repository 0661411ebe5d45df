/**
 * Somebody who may use one connector, and what they can try against somebody else's. Both connectors lead to one
 * registry, with an account each, which is where a mistake would show.
 */
import { expect } from "chai";
import { readBasic } from "../../../examples/standalone/token-server.ts";
import { type Cleanup, cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import type { RecordedRequest } from "../../support/fake-registry-exchange.ts";
import { sha256 } from "../../support/oci-image.ts";
import { clientOf, type TestClient } from "../test-client.ts";
import { type ConnectOptions, startTestProxy, type TestProxy } from "../test-proxy.ts";

const users = { alice: "secret-of-alice", mallory: "secret-of-mallory" };

/** The account of one of them in the registry. */
export const login = (username: keyof typeof users): ConnectOptions => ({
  credential: { username, password: users[username] },
});

export const secretBlob: Buffer = Buffer.from("what only alice may read");
export const secretDigest: string = sha256(secretBlob);

/** The head of a request: `GET` where the path stands alone. */
export const head = (path: string, ...lines: readonly string[]): string =>
  [`${path.includes(" ") ? path : `GET ${path}`} HTTP/1.1`, ...lines, "", ""].join("\r\n");

export interface TwoTenants {
  /** Has `private/app`, for alice alone, and `app`, for both. */
  readonly registry: FakeRegistry;
  readonly proxy: TestProxy;
  /** Opens the connector `victim`, and no other. */
  readonly alice: TestClient;
  /** Opens the connector `attacker`, and no other. */
  readonly mallory: TestClient;
  /** What a test has to undo. */
  readonly undo: Cleanup;
  port(): number;
  /** Mallory's own Authorization header. */
  authorized(): string;
  /** With whose account a request came to the registry. */
  userOf(request: RecordedRequest): string | undefined;
  /** The accounts that the registry has seen. */
  seen(): readonly (string | undefined)[];
  /** What a person could read of a secret, whatever came of an attempt. */
  expectNothingOfAlice(text: string): void;
}

/** Sets the stage before a suite, tidies it before each test, and takes it away in the end. */
export function twoTenants(): TwoTenants {
  const resources = cleanup();
  const undo = cleanup();
  const stage = {} as { -readonly [key in keyof TwoTenants]: TwoTenants[key] };

  before(async () => {
    const registry = resources.add(await startFakeRegistry({ auth: "bearer", users }));
    registry.auth.rights = (user, { name, actions }) =>
      user === "alice" || (user === "mallory" && !name.startsWith("private")) ? actions : [];
    const proxy = resources.add(await startTestProxy());
    proxy.connect("victim", registry.url, login("alice"));
    proxy.connect("attacker", registry.url, login("mallory"));
    const alice = clientOf(proxy, "victim");
    const mallory = clientOf(proxy, "attacker");
    Object.assign(stage, { registry, proxy, alice, mallory });
  });
  beforeEach(() => {
    const { registry } = stage;
    registry.repositories.clear();
    addBlob(registry.repository("private/app"), secretBlob);
    registry.repository("private/app").tags.set("of-alice", "x");
    registry.repository("app").tags.set("of-all", "x");
    registry.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  return Object.assign(stage, {
    undo,
    port: () => Number(stage.proxy.http.split(":")[1]),
    authorized: () => `Authorization: ${stage.mallory.authorization}`,
    userOf: ({ headers: { authorization } }: RecordedRequest) =>
      readBasic(authorization)?.user ??
      stage.registry.auth.tokens.get(authorization?.slice("Bearer ".length) ?? "")?.user,
    seen: () => [...new Set(stage.registry.requests.map(stage.userOf))],
    expectNothingOfAlice: (text: string) => {
      expect(stage.seen(), "accounts that were used").to.not.include("alice");
      expect(text).to.not.contain("of-alice").and.not.contain("what only alice");
    },
  });
}
