import {
  brotliCompressSync,
  deflateRawSync,
  deflateSync,
  gzipSync,
  zstdCompressSync,
} from "node:zlib";
import { expect } from "chai";
import fc from "fast-check";
import { CredentialSearch } from "../../../src/proxy/relay/credential-search.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { growthOf } from "../../support/growth.ts";
import { searchSecrets } from "../../support/secrets-search.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const password = 'secret/of "alice"+äö';
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const percentAll = (text: string): string =>
  Buffer.from(text).toString("hex").replace(/../g, "%$&");

/** Ways to write a secret into a text. */
const forms: Readonly<Record<string, (secret: string) => string>> = {
  "as it is": (secret) => secret,
  "as JSON": (secret) => JSON.stringify(secret),
  "in JSON, in ASCII alone": (secret) =>
    JSON.stringify(secret).replace(
      /[^ -~]|[<>&+]/g,
      (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`,
    ),
  "in base64": base64,
  "in base64 for URLs": (secret) => Buffer.from(secret).toString("base64url"),
  "in base64 behind one sign": (secret) => base64(`x${secret}`),
  "in base64 behind two": (secret) => base64(`xy${secret}z`),
  "in base64 behind a user": (secret) => base64(`alice:${secret}`),
  "in base64 of base64": (secret) => base64(base64(`alice:${secret}`)),
  "in base64 that is percent-encoded": (secret) => encodeURIComponent(base64(secret)),
  "percent-encoded": encodeURIComponent,
  "percent-encoded, every sign": percentAll,
  "percent-encoded twice": (secret) => encodeURIComponent(percentAll(secret)),
  hexadecimal: (secret) => Buffer.from(secret).toString("hex"),
  "hexadecimal, in capitals": (secret) => Buffer.from(secret).toString("hex").toUpperCase(),
};
/** What can't be found by the bytes of the password, but by those of the header that was sent. */
const ofHeaderOnly = "in base64 of base64";

describe("a credential that a registry shows", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let digest: string;

  before(async () => {
    const users = { alice: password };
    registry = resources.add(await startFakeRegistry({ auth: "bearer", users }));
    proxy = resources.add(await startTestProxy());
    const credential = { username: "alice", password };
    proxy.connect("harbor", registry.url, { credential });
    const basic = resources.add(await startFakeRegistry({ auth: "basic", users }));
    proxy.connect("basic", basic.url, { credential });
    basicRegistry = basic;
    client = clientOf(proxy, "harbor");
    digest = addBlob(registry.repository("app"), Buffer.from("blob"));
  });
  let basicRegistry: FakeRegistry;
  after(resources.stop);
  afterEach(undo.stop);

  /** The token that a request has come with. */
  const tokenOf = (authorization: string | undefined): string =>
    String(authorization).replace(/^Bearer /, "");
  const expectNothing = async (answer: {
    readonly rawHeaders: readonly string[];
    body: Buffer;
  }) => {
    const token = tokenOf(registry.requests.at(-1)?.headers.authorization);
    const secrets = { password, token };
    const outputs = { headers: answer.rawHeaders.join("\n"), body: answer.body, log: proxy.log() };
    expect(await searchSecrets({ secrets, outputs })).to.deep.equal([]);
  };

  for (const [name, write] of Object.entries(forms)) {
    for (const secret of ["password", "token"] as const) {
      if (name === ofHeaderOnly) continue;
      it(`becomes a 502 in an error: the ${secret} ${name}`, async () => {
        undo.defer(
          registry.on("GET tags", ({ request, response }) => {
            const text = write(
              secret === "token" ? tokenOf(request.headers.authorization) : password,
            );
            response.writeHead(500).end(`failed with "${text}" …`);
          }),
        );
        const answer = await client("GET", "app/tags/list");
        expect(answer.status).to.equal(502);
        expect(errorIn(answer).message).to.contain("connector's credential");
        await expectNothing(answer);
      });
    }
  }

  it("becomes a 502 where it is a Basic header, as it is or encoded once more", async () => {
    for (const write of [String, base64, encodeURIComponent]) {
      const stop = basicRegistry.on("GET tags", ({ request, response }) => {
        response.writeHead(404).end(write(String(request.headers.authorization)));
      });
      const answer = await clientOf(proxy, "basic")("GET", "app/tags/list");
      stop();
      expect(answer.status).to.equal(502);
    }
  });

  const encodings: readonly (readonly [string | undefined, (text: string) => Buffer])[] = [
    ["gzip", gzipSync],
    ["x-gzip", gzipSync],
    [undefined, gzipSync],
    ["deflate", deflateSync],
    ["deflate", deflateRawSync],
    ["br", brotliCompressSync],
    ["zstd", zstdCompressSync],
    ["gzip, br", (text) => brotliCompressSync(gzipSync(text))],
    ["GZIP", (text) => gzipSync(text).subarray(0, -12)],
  ];
  for (const [encoding, compress] of encodings) {
    it(`becomes a 502 in an error that is compressed: ${encoding}, ${compress.name}`, async () => {
      undo.defer(
        registry.on("GET tags", ({ response }) => {
          const headers = encoding === undefined ? {} : { "Content-Encoding": encoding };
          response
            .writeHead(500, headers)
            .end(compress(`failed: ${base64(password)} ${"x".repeat(2_000)}`));
        }),
      );
      const answer = await client("GET", "app/tags/list");
      expect(answer.status).to.equal(502);
    });

    it(`is not seen in an error without it: ${encoding}, ${compress.name}`, async () => {
      const body = compress(`failed: ${"harmless ".repeat(200)}`);
      undo.defer(
        registry.on("GET tags", ({ response }) => {
          const headers = encoding === undefined ? {} : { "Content-Encoding": encoding };
          response.writeHead(500, headers).end(body);
        }),
      );
      const answer = await client("GET", "app/tags/list");
      expect(answer.status).to.equal(500);
      expect(answer.body.equals(body)).to.equal(true);
    });
  }

  it("is not looked for in what is larger than a person could read, which goes no further", async () => {
    undo.defer(
      registry.on("GET tags", ({ response }) => {
        const body = gzipSync(Buffer.alloc(32 * 1024 * 1024));
        response.writeHead(500, { "Content-Encoding": "gzip" }).end(body);
      }),
    );
    const answer = await client("GET", "app/tags/list");
    expect(answer.status).to.equal(502);
    expect(errorIn(answer).message).to.contain("too large to be searched");
  });

  const headers = [
    "Docker-Content-Digest",
    "Docker-Upload-UUID",
    "ETag",
    "OCI-Subject",
    "X-Echo",
    "Warning",
  ];
  for (const header of headers) {
    it(`becomes a 502 in a header: ${header}`, async () => {
      for (const name of ["in base64", "percent-encoded", "hexadecimal"]) {
        for (const secret of [password, undefined]) {
          const stop = registry.on("GET blob", ({ request, send }) => {
            const text = secret ?? tokenOf(request.headers.authorization);
            return send(200, { [header]: `sha256:${forms[name]?.(text)}` }, Buffer.from("blob"));
          });
          const answer = await client("GET", `app/blobs/${digest}`);
          stop();
          expect(answer.status, name).to.equal(502);
          expect(answer.body.toString()).to.not.contain("blob");
          await expectNothing(answer);
        }
      }
    });
  }

  it("becomes a 502 in a Link, and in the Location of what was created", async () => {
    const hex = forms.hexadecimal?.(password);
    undo.defer(
      registry.on("GET tags", ({ send }) =>
        send(200, { Link: `</v2/app/tags/list?last=${hex}>; rel="next"` }),
      ),
    );
    expect((await client("GET", "app/tags/list")).status).to.equal(502);
    undo.defer(
      registry.on("PUT manifest", ({ send }) =>
        send(201, { Location: `/v2/app/manifests/1?echo=${encodeURIComponent(password)}` }),
      ),
    );
    const pushed = await client("PUT", "app/manifests/1", {
      headers: { "content-type": "application/vnd.oci.image.manifest.v1+json" },
      body: "{}",
    });
    expect(pushed.status).to.equal(502);
  });

  it("becomes a 502 in the host of a redirect, of an upload, and of a token server", async () => {
    const hex = forms.hexadecimal?.(password) ?? "";
    const token = base64(password)
      .toLowerCase()
      .replace(/[^a-z0-9]/g, "-");
    for (const host of [
      `${hex}.test`,
      `${hex.slice(0, 9)}.${hex.slice(9)}.test`,
      `x${token}y.test`,
    ]) {
      const Location = `https://${host}/v2/x`;
      const stops = [
        registry.on("GET blob", ({ send }) => send(307, { Location })),
        registry.on("POST uploads", ({ send }) => send(202, { Location })),
      ];
      for (const answer of [
        await client("GET", `app/blobs/${digest}`),
        await client("POST", "app/blobs/uploads/"),
      ]) {
        expect(answer.status, host).to.equal(502);
        expect(errorIn(answer).message.toLowerCase())
          .to.contain("credential")
          .and.not.contain(host);
      }
      for (const stop of stops) stop();
    }
    const realm = `Bearer realm="https://${hex}.test/token"`;
    undo.defer(
      registry.on(
        "* *",
        ({ response }) => void response.writeHead(401, { "WWW-Authenticate": realm }).end(),
        "before auth",
      ),
    );
    proxy.connect("moved", registry.url, { credential: { username: "alice", password } });
    const answer = await clientOf(proxy, "moved")("GET", "app/tags/list");
    expect(answer.status).to.equal(502);
    expect(answer.body.toString()).to.not.contain(hex);
    await expectNothing(answer);
  });

  it("is not looked for in blobs and manifests", async () => {
    const shown = addBlob(registry.repository("app"), Buffer.from(`password: ${password}`));
    const answer = await client("GET", `app/blobs/${shown}`);
    expect(answer.status).to.equal(200);
    expect(answer.body.toString()).to.contain(password);
  });
});

describe("CredentialSearch", function () {
  this.timeout(30_000);
  const searchFor = (secret: string): CredentialSearch =>
    new CredentialSearch({ username: "alice", password: secret });

  it("finds every form, and nothing where there is none", () => {
    const text = fc.string({ unit: "binary-ascii", maxLength: 40 });
    const secret = fc.string({ unit: "grapheme-ascii", minLength: 16, maxLength: 60 });
    const form = fc.constantFrom(...Object.keys(forms).filter((name) => name !== ofHeaderOnly));
    fc.assert(
      fc.property(text, secret, form, text, (before, value, name, after) => {
        const shown = `${before.replaceAll("%", "")} ${forms[name]?.(value)} ${after}`;
        expect(searchFor(value).isIn(shown), shown).to.equal(true);
        expect(searchFor(`another ${value}`).isIn(shown)).to.equal(false);
      }),
    );
  });

  it("looks for nothing that is too short, and for no plain word as it is", () => {
    expect(searchFor("1234567").isIn("1234567")).to.equal(false);
    expect(searchFor("registry").isIn("the registry is full")).to.equal(false);
    expect(searchFor("registry").isIn(base64("alice:registry"))).to.equal(true);
    const search = new CredentialSearch(undefined);
    search.add("Basic YTpi");
    expect(search.isIn("YTpi")).to.equal(false);
    search.add(undefined);
    expect(search.isIn("undefined")).to.equal(false);
  });

  it("takes time in proportion to what it searches", () => {
    const search = searchFor(password);
    search.add(`Bearer ${"aB1%-".repeat(400)}z`);
    for (const unit of ["x", "%25", "\\u0041", "aB1%-", "\\", "%"]) {
      const prepare = (size: number) => {
        const text = unit.repeat(size);
        return () => search.isIn(text);
      };
      expect(growthOf(prepare, 4_000, 2.5), unit).to.be.at.most(2.5);
    }
  });

  it("takes time in proportion to a token that is made to be hard to find", () => {
    const prepare = (size: number) => {
      const half = "a".repeat(size / 2);
      const hard = new CredentialSearch(undefined);
      hard.add(`Bearer ${half}b${half}`);
      const text = "a".repeat(4 * size);
      return () => hard.isIn(text);
    };
    expect(growthOf(prepare, 8_000, 2.5)).to.be.at.most(2.5);
  });

  it("finds a long token by its end, in every form", () => {
    const token = `eyJhbGciOiJub25lIn0.${"aB1%-".repeat(400)}.the-signature-of-it-all`;
    const search = new CredentialSearch(undefined);
    search.add(`Bearer ${token}`);
    for (const [name, write] of Object.entries(forms)) {
      if (name !== ofHeaderOnly) expect(search.isIn(`x ${write(token)} y`), name).to.equal(true);
    }
    expect(search.isIn(token.slice(0, 1_000))).to.equal(false);
  });
});
