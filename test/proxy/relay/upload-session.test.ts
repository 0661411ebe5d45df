import { randomBytes } from "node:crypto";
import { expect } from "chai";
import fc from "fast-check";
import { createSessionSeal, type UploadSession } from "../../../src/proxy/relay/upload-session.ts";

describe("a sealed upload session", function () {
  this.timeout(10_000);
  const key = randomBytes(32);
  const lifetimeMs = 24 * 60 * 60 * 1000;
  let now = 1_000_000_000_000;
  const { seal, open } = createSessionSeal(
    () => [key],
    () => now,
  );
  const session: UploadSession = {
    url: "https://harbor.test/v2/app/blobs/uploads/1?_state=a%3D%3D",
    connectorUid: "uid",
    repository: "app",
    subject: "pod",
  };

  it("is opened by every replica with the same key, whatever is in it", () => {
    const replica = createSessionSeal(
      () => [Buffer.from(key)],
      () => now,
    );
    const text = fc.string({ unit: "grapheme" });
    const sessions = fc.record({
      url: text,
      connectorUid: text,
      repository: text,
      subject: text,
    });
    fc.assert(
      fc.property(sessions, (value) => {
        expect(replica.open(seal(value))).to.deep.equal(value);
      }),
    );
  });

  it("is one segment of a path, another each time, and tells nothing", () => {
    const sealed = seal(session);
    expect(sealed).to.match(/^[A-Za-z0-9_-]+$/);
    expect(seal(session)).to.not.equal(sealed);
    expect(Buffer.from(sealed, "base64url").toString("latin1")).to.not.contain("harbor");
  });

  it("is not opened once it has expired", () => {
    const sealed = seal(session);
    now += lifetimeMs - 1;
    expect(open(sealed)).to.deep.equal(session);
    now += 1;
    expect(open(sealed)).to.equal(undefined);
    now -= lifetimeMs;
  });

  it("is not opened by another key", () => {
    const other = createSessionSeal(
      () => [randomBytes(32)],
      () => now,
    );
    expect(other.open(seal(session))).to.equal(undefined);
  });

  it("is opened by every key that is known, and sealed with the first", () => {
    const next = randomBytes(32);
    const rotated = createSessionSeal(
      () => [next, key],
      () => now,
    );
    expect(rotated.open(seal(session))).to.deep.equal(session);
    expect(open(rotated.seal(session))).to.equal(undefined);
  });

  it("is not opened with any bit of it turned", () => {
    const sealed = Buffer.from(seal(session), "base64url");
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const turned = Buffer.from(sealed);
      turned[bit >> 3] = (turned[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(open(turned.toString("base64url")), `bit ${bit}`).to.equal(undefined);
    }
  });

  it("is not opened with any character of it changed, added or missing", () => {
    const sealed = seal(session);
    const edits = fc.record({
      at: fc.nat(sealed.length),
      length: fc.nat(2),
      text: fc.stringMatching(/^[A-Za-z0-9_=.~+/-]{0,2}$/),
    });
    fc.assert(
      fc.property(edits, ({ at, length, text }) => {
        const edited = sealed.slice(0, at) + text + sealed.slice(at + length);
        fc.pre(edited !== sealed);
        expect(open(edited)).to.equal(undefined);
      }),
      { numRuns: 2000 },
    );
  });

  it("is not opened where it is something else altogether", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect(open(Buffer.from(bytes).toString("base64url"))).to.equal(undefined);
      }),
    );
    expect(open("")).to.equal(undefined);
  });
});
