import { expect } from "chai";
import fc from "fast-check";
import { createSharedStore } from "../../src/kube/shared-store.ts";

describe("createSharedStore()", () => {
  it("evicts what the owner with the most has not used for longest", () => {
    const store = createSharedStore<string>(10);
    store.set("small", "neighbour's", "b", 2);
    store.set("first", "1", "a", 4);
    store.set("second", "2", "a", 4);
    store.get("first");
    store.set("third", "3", "a", 4);
    expect([store.get("first"), store.get("second"), store.get("third")]).to.deep.equal([
      "1",
      undefined,
      "3",
    ]);
    for (let number = 0; number < 1_000; number += 1) store.set(`more-${number}`, "x", "a", 4);
    expect(store.get("small")).to.equal("neighbour's");
  });

  it("keeps nothing that is larger than itself", () => {
    const store = createSharedStore<string>(10);
    store.set("b", "b", "b", 1);
    store.set("a", "a", "a", 11);
    expect([store.get("a"), store.get("b")]).to.deep.equal([undefined, "b"]);
  });

  it("never holds more than it may, and nothing of an owner is displaced while another has more", () => {
    const step = fc.record({
      key: fc.nat(30),
      owner: fc.constantFrom("a", "b", "c"),
      size: fc.integer({ min: 1, max: 5 }),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const store = createSharedStore<{ readonly owner: string; readonly size: number }>(20);
        for (const { key, owner, size } of steps) {
          store.set(`${owner} ${key}`, { owner, size }, owner, size);
          const held = ["a", "b", "c"].flatMap((one) =>
            Array.from({ length: 31 }, (_, number) => store.peek(`${one} ${number}`) ?? []).flat(),
          );
          const total = held.reduce((sum, entry) => sum + entry.size, 0);
          expect(total).to.be.at.most(20);
          expect(store.peek(`${owner} ${key}`) !== undefined || total > 20 - 5).to.equal(true);
        }
      }),
    );
  });
});
