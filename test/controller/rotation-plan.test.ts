import { X509Certificate } from "node:crypto";
import { expect } from "chai";
import { createAuthority } from "../../src/certificate-authority.ts";
import { type ProxyKeys, trustedBundle } from "../../src/connector/proxy-keys.ts";
import {
  keysAfter,
  planRotation,
  type RotationState,
  type RotationStep,
} from "../../src/controller/rotation-plan.ts";

const hour = 60 * 60_000;
const day = 24 * hour;
const born = Date.parse("2026-01-01T00:00:00Z");
const timing = { overlapMs: day, renewBeforeMs: 365 * day };

describe("planRotation()", () => {
  let first: Pick<ProxyKeys, "authority" | "sealKey">;
  let second: Pick<ProxyKeys, "authority" | "sealKey">;
  let keys: ProxyKeys;

  before(async () => {
    const make = async (name: string, byte: number) => ({
      authority: await createAuthority(name, new Date(born)),
      sealKey: Buffer.alloc(32, byte),
    });
    first = await make("first", 1);
    second = await make("second", 2);
    keys = { ...first, next: undefined, previous: undefined };
  });

  const plan = (state: Partial<RotationState>, now: number): RotationStep => {
    const of = state.keys ?? keys;
    const published = { bundle: trustedBundle(of), since: born };
    const given = { keys: of, published, rotate: undefined, rotated: undefined, ...state };
    return planRotation(given, timing, now);
  };

  it("publishes what is not published, whatever else there is to do", () => {
    const bundle = "something else";
    for (const published of [undefined, { bundle, since: born }]) {
      expect(plan({ published, rotate: "now" }, born + 5000 * day)).to.deep.equal({
        step: "publish",
      });
    }
  });

  it("waits until the authority has a year to live", () => {
    const end = Date.parse(new X509Certificate(keys.authority.certificate).validTo);
    const until = end - timing.renewBeforeMs;
    expect(plan({}, until - 1)).to.deep.equal({ step: "wait", until });
    expect(plan({}, until)).to.deep.equal({ step: "introduce" });
    expect(plan({}, end + day)).to.deep.equal({ step: "introduce" });
  });

  it("rotates when it is asked to, once", () => {
    expect(plan({ rotate: "1" }, born)).to.deep.equal({ step: "introduce" });
    expect(plan({ rotate: "2", rotated: "1" }, born)).to.deep.equal({ step: "introduce" });
    expect(plan({ rotate: "1", rotated: "1" }, born).step).to.equal("wait");
    expect(plan({ rotated: "1" }, born).step).to.equal("wait");
  });

  it("introduces, promotes and retires, with an overlap after each", () => {
    const introduced = keysAfter("introduce", keys, second);
    expect(introduced).to.deep.equal({ ...first, next: second, previous: undefined });
    const until = born + day;
    expect(plan({ keys: introduced }, until - 1)).to.deep.equal({ step: "wait", until });
    expect(plan({ keys: introduced }, until)).to.deep.equal({ step: "promote" });
    const promoted = keysAfter("promote", introduced, keys);
    const previous = { certificate: first.authority.certificate, sealKey: first.sealKey };
    expect(promoted).to.deep.equal({ ...second, next: undefined, previous });
    expect(plan({ keys: promoted }, until - 1)).to.deep.equal({ step: "wait", until });
    // What is asked for meanwhile waits.
    expect(plan({ keys: promoted, rotate: "3" }, until)).to.deep.equal({ step: "retire" });
    const retired = keysAfter("retire", promoted, keys);
    expect(retired).to.deep.equal({ ...second, next: undefined, previous: undefined });
  });

  it("counts from when others could know, not from when the keys were made", () => {
    const introduced = keysAfter("introduce", keys, second);
    // The controller has ended before it could publish, and comes back a week later.
    const published = { bundle: trustedBundle(keys), since: born };
    const late = born + 7 * day;
    expect(plan({ keys: introduced, published }, late)).to.deep.equal({ step: "publish" });
    const since = { bundle: trustedBundle(introduced), since: late };
    const until = late + day;
    expect(plan({ keys: introduced, published: since }, late)).to.deep.equal({
      step: "wait",
      until,
    });
    // A promotion is published, too, so that its overlap counts from there.
    const promoted = keysAfter("promote", introduced, keys);
    expect(plan({ keys: promoted, published: since }, until)).to.deep.equal({ step: "publish" });
  });
});
