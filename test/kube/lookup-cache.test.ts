import { expect } from "chai";
import fc from "fast-check";
import { Unavailable } from "../../src/connector/platform.ts";
import {
  createLookupCache,
  type LookupCache,
  type LookupResult,
  shareWait,
} from "../../src/kube/lookup-cache.ts";

describe("createLookupCache()", () => {
  let time = 0;
  let looks = 0;
  let cache: LookupCache<number>;
  const now = (): number => time;
  /** Counts the looks, and answers with their number. */
  const look = async (): Promise<LookupResult<number>> => {
    looks += 1;
    return { value: looks, freshMs: 100, usableMs: 60_000 };
  };
  const away = async (): Promise<never> => {
    looks += 1;
    throw new Unavailable("away");
  };

  beforeEach(() => {
    time = 1_000_000;
    looks = 0;
    cache = createLookupCache({ maxEntries: 3, now });
  });

  it("asks once as long as an answer is fresh", async () => {
    expect(await cache.get("k", look)).to.equal(1);
    time += 99;
    expect(await cache.get("k", look)).to.equal(1);
    time += 1;
    expect(await cache.get("k", look)).to.equal(2);
    expect(await cache.get("other", look)).to.equal(3);
  });

  it("asks once for all who ask at the same time", async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => cache.get("k", look)));
    expect(new Set(answers)).to.deep.equal(new Set([1]));
  });

  it("asks anew where the answer was wrong, though not again and again", async () => {
    await cache.get("k", look);
    expect(await cache.get("k", look, true)).to.equal(2);
    expect(await cache.get("k", look, true)).to.equal(2);
    time += 1_000;
    expect(await cache.get("k", look, true)).to.equal(3);
    expect(await cache.get("k", look)).to.equal(3);
  });

  it("lets the lookups of a request wait for a second in all", async () => {
    const other = createLookupCache<number>({ maxEntries: 3, now });
    const third = createLookupCache<number>({ maxEntries: 3, now });
    const caches = [cache, other, third];
    for (const one of caches) await one.get("k", look);
    time += 100;
    const never = (): Promise<never> => new Promise(() => {});
    const request = async (): Promise<number> => {
      const begin = performance.now();
      for (const [index, one] of caches.entries()) {
        expect(await one.get("k", never)).to.equal(index + 1);
      }
      return performance.now() - begin;
    };
    // Lookups that are no part of a request wait for themselves, and so three times as long.
    const apart = await request();
    const shared = await Promise.all([shareWait(request), shareWait(request)]);
    for (const tookMs of shared) expect(tookMs).to.be.within(apart / 4, apart / 2);
  });

  it("takes a new value that comes in time, at the end of a request's patience, too", async () => {
    await cache.get("k", look);
    time += 100;
    await shareWait(async () => {
      expect(await cache.get("k", () => new Promise(() => {}))).to.equal(1);
      const other = createLookupCache<number>({ maxEntries: 3, now });
      expect(await other.get("k", look)).to.equal(2);
      time += 100;
      expect(await other.get("k", look)).to.equal(3);
    });
  });

  it("does not share a look that began before the answer was found wrong", async () => {
    const gate = Promise.withResolvers<LookupResult<number>>();
    const old = cache.get("k", () => gate.promise);
    const fresh = await cache.get("k", look, true);
    gate.resolve({ value: 77, freshMs: 60_000 });
    expect([fresh, await old]).to.deep.equal([1, 77]);
    expect(await cache.get("k", look)).to.equal(1);
  });

  it("serves what is usable while nobody can be asked, and asks every five seconds", async () => {
    await cache.get("k", look);
    time += 1_000;
    expect(await cache.get("k", away)).to.equal(1);
    expect(await cache.get("k", away)).to.equal(1);
    expect(looks).to.equal(2);
    time += 5_000;
    expect(await cache.get("k", look)).to.equal(3);
  });

  it("serves nothing that is not usable any more", async () => {
    await cache.get("k", look);
    for (const later of [59_999, 1]) {
      time += later;
      const answer = await cache.get("k", away).catch((error: unknown) => error);
      if (later === 1) expect(answer).to.be.instanceOf(Unavailable);
      else expect(answer).to.equal(1);
    }
  });

  it("serves nothing old to those who know that it is wrong", async () => {
    await cache.get("k", look);
    const answer = await cache.get("k", away, true).catch((error: unknown) => error);
    expect(answer).to.be.instanceOf(Unavailable);
  });

  it("serves what is usable when a new answer takes long", async () => {
    await cache.get("k", look);
    time += 1_000;
    const gate = Promise.withResolvers<LookupResult<number>>();
    expect(await cache.get("k", () => gate.promise)).to.equal(1);
    gate.resolve({ value: 2, freshMs: 100 });
    await gate.promise;
    expect(await cache.get("k", look)).to.equal(2);
  });

  it("tells where each answer came from", async () => {
    const told: string[] = [];
    const onLookup = (outcome: string): void => void told.push(outcome);
    const telling = createLookupCache<number>({ maxEntries: 3, now, onLookup });
    await Promise.all([telling.get("k", look), telling.get("k", look)]);
    await telling.get("k", look);
    time += 1_000;
    await telling.get("k", away);
    await telling.get("other", away).catch(() => undefined);
    expect(told).to.deep.equal(["cached", "asked", "cached", "stale", "failed"]);
  });

  it("keeps no failure", async () => {
    const failing = async (): Promise<never> => {
      throw new Error("broken");
    };
    expect(await cache.get("k", failing).catch((e: unknown) => String(e))).to.contain("broken");
    expect(await cache.get("k", look)).to.equal(1);
  });

  it("keeps those that were used last", async () => {
    for (const key of ["a", "b", "c"]) await cache.get(key, look);
    await cache.get("a", look);
    await cache.get("d", look);
    const before = looks;
    for (const key of ["a", "c", "d"]) await cache.get(key, look);
    expect(looks).to.equal(before);
    await cache.get("b", look);
    expect(looks).to.equal(before + 1);
  });

  it("never gives the answer to another question", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(6), fc.nat(150))), async (steps) => {
        const answers = createLookupCache<number>({ maxEntries: 3, now });
        for (const [key, later] of steps) {
          time += later;
          const answer = async (): Promise<LookupResult<number>> => ({ value: key, freshMs: 100 });
          expect(await answers.get(`${key}`, answer)).to.equal(key);
        }
      }),
    );
  });
});
