import { randomBytes } from "node:crypto";
import { readBasic } from "../../../examples/standalone/token-server.ts";
import type { FakeRegistry } from "../fake-registry.ts";
import type { Exchange } from "../fake-registry-exchange.ts";
import { type Trust, verifyByJwks } from "./issuer.ts";

/** A registry that takes tokens of an issuer, in each of the ways that there are. */
export interface OidcRegistry {
  /** How long a login lives that it gives, in milliseconds. */
  lifeMs: number;
  /** Exchanges that came, with what was answered. */
  readonly exchanges: { readonly path: string; readonly status: number }[];
  /** Answers every exchange with this status in place of a login. */
  failWith: number | undefined;
  /** The body of such an answer. */
  failBody: unknown;
  /** Whether it says how long its logins live. */
  saysLife: boolean;
  /** What is waited for before an exchange is answered. */
  delay: (() => Promise<unknown>) | undefined;
  /** The logins that it gave out. */
  readonly given: string[];
}

/** What the registry trusts; the audience is its own origin, unless another one is given. */
export type OidcTrust = Omit<Trust, "audience"> & Partial<Pick<Trust, "audience">>;

export const robot = "team+builder";

/** Lets a registry exchange tokens: as Quay, as JFrog, and by RFC 8693 at /oauth2/exchange. */
export function addOidcExchanges(registry: FakeRegistry, trust: OidcTrust): OidcRegistry {
  const verified: Trust = { audience: registry.url, ...trust };
  const fake: OidcRegistry = {
    lifeMs: 60_000,
    exchanges: [],
    failWith: undefined,
    failBody: {},
    saysLife: true,
    delay: undefined,
    given: [],
  };
  const give = (user: string): string => {
    const password = randomBytes(24).toString("base64url");
    fake.given.push(password);
    const login = `${user}:${password}`;
    registry.auth.logins.add(login);
    setTimeout(() => registry.auth.logins.delete(login), fake.lifeMs).unref();
    return password;
  };
  const expiry = (): object => (fake.saysLife ? { expires_in: fake.lifeMs / 1000 } : {});
  const answer = async (
    exchange: Exchange,
    token: string | undefined,
    body: () => object | undefined,
  ): Promise<void> => {
    await fake.delay?.();
    const status = fake.failWith ?? (await statusFor(token, body));
    fake.exchanges.push({ path: exchange.path, status });
    if (status !== 200)
      exchange.json(status, fake.failWith === undefined ? refused : fake.failBody);
  };
  const statusFor = async (token = "", body: () => object | undefined): Promise<number> => {
    const isTrusted = await verifyByJwks(token, verified).then(
      () => true,
      () => false,
    );
    return isTrusted ? (body() === undefined ? 400 : 200) : 401;
  };
  const handle = (
    route: Parameters<FakeRegistry["on"]>[0],
    read: (
      exchange: Exchange,
    ) => Promise<{ token?: string | undefined; body: () => object | undefined }>,
  ): void => {
    registry.on(
      route,
      async (exchange) => {
        const { token, body } = await read(exchange);
        let sent: object | undefined;
        await answer(exchange, token, () => {
          sent = body();
          return sent;
        });
        if (sent !== undefined) exchange.json(200, sent);
      },
      "before auth",
    );
  };

  handle("GET /oauth2/federation/robot/token", async ({ request }) => {
    const login = readBasic(request.headers.authorization);
    return {
      token: login?.password,
      body: () => (login?.user === robot ? { token: give(robot), ...expiry() } : undefined),
    };
  });
  handle("POST /access/api/v1/oidc/token", async (exchange) => {
    const form = JSON.parse((await exchange.body()).toString()) as Record<string, string>;
    const isRight =
      form.provider_name === "our-cluster" &&
      form.grant_type === "urn:ietf:params:oauth:grant-type:token-exchange" &&
      form.subject_token_type === "urn:ietf:params:oauth:token-type:id_token";
    return {
      token: form.subject_token,
      body: () => (isRight ? { access_token: give("ci"), username: "ci", ...expiry() } : undefined),
    };
  });
  handle("POST /oauth2/exchange", async (exchange) => {
    const form = new URLSearchParams((await exchange.body()).toString());
    const isRight = form.get("grant_type") === "urn:ietf:params:oauth:grant-type:token-exchange";
    return {
      token: form.get("subject_token") ?? undefined,
      body: () =>
        isRight ? { access_token: give("svc"), token_type: "Bearer", ...expiry() } : undefined,
    };
  });
  return fake;
}

const refused = { error: "invalid_token", error_description: "the token is not trusted here" };
