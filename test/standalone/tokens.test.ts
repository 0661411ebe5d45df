import { createHmac, generateKeyPairSync, type KeyObject } from "node:crypto";
import { expect } from "chai";
import fc from "fast-check";
import { SignJWT } from "jose";
import {
  createTokenSigner,
  createTokenVerifier,
  type SignToken,
  type TokenHolder,
  type TokenOptions,
} from "../../src/standalone/tokens.ts";

describe("the tokens of volumes in standalone mode", function () {
  this.timeout(30_000);
  const { privateKey: key, publicKey } = generateKeyPairSync("ed25519");
  const start = Date.parse("2026-01-01T00:00:00Z");
  const holder: TokenHolder = {
    volumeId: "v1",
    mount: "m1",
    connectors: ["default/harbor", "team-b/ghcr"],
  };
  let time: number;
  let mounted: string | undefined;
  let ids = 0;
  const options: TokenOptions = { key, audience: "connectors-proxy", now: () => time };
  const signer = (changed: Partial<TokenOptions> = {}): SignToken =>
    createTokenSigner({ ...options, ...changed, newTokenId: () => `id-${++ids}` });
  const verify = createTokenVerifier({
    ...options,
    admits: (volumeId, mount) => `${volumeId}/${mount}` === mounted,
  });
  const sign = async (lifetime = 600): Promise<string> => (await signer()(holder, lifetime)).token;
  /** Why a token is refused. The sentence may hold no part of it. */
  const refusal = async (token: string): Promise<string | undefined> => {
    const result = await verify(token);
    if (result.ok) return undefined;
    // A shorter part may be a word of the sentence by chance.
    const parts = token.split(".").filter((part) => part.length >= 8);
    for (const part of parts) expect(result.reason).not.to.include(part);
    return result.reason;
  };

  beforeEach(() => {
    time = start;
    mounted = "v1/m1";
  });

  it("name the volume, the mount and the connectors", async () => {
    const { token, expiresAt } = await signer()(holder, 600);
    expect(expiresAt).to.deep.equal(new Date(start + 600_000));
    expect(await verify(token)).to.deep.equal({
      ok: true,
      value: {
        user: "volume:v1",
        groups: [],
        subject: "m1",
        connectors: ["default/harbor", "team-b/ghcr"],
      },
    });
  });

  it("differ from each other, and fit into a header", async () => {
    const [one, two] = [await sign(), await sign()];
    expect(one).not.to.equal(two);
    expect(one).to.match(/^[\w.-]+$/);
  });

  it("expire, with a little patience for clocks", async () => {
    const token = await sign();
    time = start + 603_000;
    expect(await refusal(token)).to.equal(undefined);
    time = start + 606_000;
    expect(await refusal(token)).to.include("expired");
  });

  it("are refused once their volume is unmounted, and when it is mounted anew", async () => {
    const token = await sign();
    mounted = undefined;
    expect(await refusal(token)).to.include("not mounted any more");
    mounted = "v1/m2";
    expect(await refusal(token)).to.include("not mounted any more");
    mounted = "v1/m1";
    expect(await refusal(token)).to.equal(undefined);
  });

  it("of another key, audience or issuer are refused", async () => {
    const other = generateKeyPairSync("ed25519").privateKey;
    const foreign = (await signer({ key: other })(holder, 600)).token;
    expect(await refusal(foreign)).to.include("another key");
    const audience = (await signer({ audience: "vault" })(holder, 600)).token;
    expect(await refusal(audience)).to.include("something else");
    expect(await refusal(await handMade({ iss: "https://kubernetes.default.svc" }))).to.include(
      "something else",
    );
  });

  /** Signed with the right key, yet not as the signer does it. */
  const handMade = (
    claims: Record<string, unknown>,
    alg = "EdDSA",
    signingKey: KeyObject = key,
  ): Promise<string> =>
    new SignJWT({
      iss: "oci-connector",
      aud: "connectors-proxy",
      sub: "v1",
      iat: start / 1000,
      exp: start / 1000 + 600,
      jti: "x",
      mount: "m1",
      connectors: [],
      ...claims,
    })
      .setProtectedHeader({ alg })
      .sign(signingKey);

  it("need every claim, in its own form", async () => {
    expect(await refusal(await handMade({}))).to.equal(undefined);
    const wrong: readonly Record<string, unknown>[] = [
      ...["iss", "aud", "sub", "iat", "exp", "jti", "mount", "connectors"].map((name) => ({
        [name]: undefined,
      })),
      { connectors: "default/harbor" },
      { connectors: [1] },
      { mount: ["m1"] },
      { nbf: start / 1000 + 60 },
    ];
    for (const claims of wrong) {
      expect(await refusal(await handMade(claims)), JSON.stringify(claims)).to.be.a("string");
    }
  });

  it("of other algorithms are refused, also those made of the public key", async () => {
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
    expect(await refusal(await handMade({}, "RS256", rsa))).to.include("not a token");
    const [, payload] = (await sign()).split(".");
    const encode = (value: unknown): string =>
      Buffer.from(JSON.stringify(value)).toString("base64url");
    expect(await refusal(`${encode({ alg: "none" })}.${payload}.`)).to.include("not a token");
    const unsigned = `${encode({ alg: "HS256" })}.${payload}`;
    const secrets = [
      publicKey.export({ type: "spki", format: "pem" }),
      publicKey.export({ type: "spki", format: "der" }),
    ];
    for (const secret of secrets) {
      const signature = createHmac("sha256", secret).update(unsigned).digest("base64url");
      expect(await refusal(`${unsigned}.${signature}`)).to.include("not a token");
    }
  });

  it("are refused after any tampering", async () => {
    const token = await sign();
    const signs = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ "];
    const edit = fc.record({
      at: fc.nat(token.length),
      cut: fc.nat(3),
      put: fc.array(fc.constantFrom(...signs), { maxLength: 3 }).map((letters) => letters.join("")),
    });
    await fc.assert(
      fc.asyncProperty(edit, async ({ at, cut, put }) => {
        const tampered = token.slice(0, at) + put + token.slice(at + cut);
        fc.pre(tampered !== token);
        expect(await refusal(tampered)).to.be.a("string");
      }),
      { numRuns: 500 },
    );
    for (const last of signs) {
      const tampered = token.slice(0, -1) + last;
      if (tampered !== token) expect(await refusal(tampered)).to.be.a("string");
    }
  });

  it("are not what just any text is", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        expect((await verify(text)).ok).to.equal(false);
      }),
    );
  });
});
