import { expect } from "chai";
import { decodeJwt } from "jose";
import { cleanup } from "./cleanup.ts";
import { plainRequest } from "./plain-request.ts";
import { startTestTokenServer } from "./token-server.ts";

describe("the token server", () => {
  const resources = cleanup();
  after(resources.stop);

  it("gives those it knows what they ask for, both ways of asking", async () => {
    const server = resources.add(await startTestTokenServer(new Map([["alice", "pass:word"]])));
    server.lifetime = 60;
    const scopes = [
      "repository:localhost:5000/a:pull,push repository:b:pull",
      "registry:catalog:*",
    ];
    const query = new URLSearchParams(scopes.map((scope): [string, string] => ["scope", scope]));
    const basic = (text: string) => ({ authorization: `Basic ${btoa(text)}` });
    const form = (password: string) =>
      plainRequest(server.realm, {
        method: "POST",
        body: `grant_type=password&username=alice&password=${password}&${query}`,
      });
    const get = (headers = {}) => plainRequest(`${server.realm}?${query}`, { headers });

    for (const answer of [await get(basic("alice:pass:word")), await form("pass:word")]) {
      const { token, expires_in } = JSON.parse(answer.body.toString());
      const claims = decodeJwt(token);
      expect(expires_in).to.equal(60);
      expect((claims.exp ?? 0) - (claims.iat ?? 0)).to.equal(60);
      expect(claims).to.deep.include({ sub: "alice", aud: "test-registry", iss: server.issuer });
      expect(claims.access).to.deep.equal([
        { type: "repository", name: "localhost:5000/a", actions: ["pull", "push"] },
        { type: "repository", name: "b", actions: ["pull"] },
        { type: "registry", name: "catalog", actions: ["*"] },
      ]);
    }
    const anonymous = JSON.parse((await get()).body.toString());
    expect(decodeJwt(anonymous.token).access).to.deep.equal([]);
    const refused = [
      await get(basic("alice:wrong")),
      await get(basic("toString:x")),
      await form(""),
    ];
    expect(refused.map(({ status }) => status)).to.deep.equal([401, 401, 401]);
    expect(refused.map(({ body }) => body.toString()).join()).not.to.match(/alice|wrong/);
  });
});
