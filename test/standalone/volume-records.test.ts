import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { isVolumeId, volumeIdOf } from "../../src/standalone/volume-records.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { eventually } from "./eventually.ts";
import {
  type RunningKeeper,
  requestFor,
  type SimulatedNode,
  simulatedNode,
} from "./simulated-node.ts";

/** A call for a volume. */
interface Operation {
  readonly volumeId: string;
  readonly act: "mount" | "mount otherwise" | "mount in vain" | "unmount";
}
/** What the caller knows of a volume by now. */
interface Known {
  readonly state: "mounted" | "not mounted" | "no answer";
  /** What a tool has read from the volume. */
  readonly token: string;
}

describe("the recorded volumes of a standalone process that is killed", () => {
  const operation: fc.Arbitrary<Operation> = fc.record({
    volumeId: fc.constantFrom("a", "b"),
    act: fc.constantFrom("mount", "mount otherwise", "mount in vain", "unmount"),
  });
  const tokenAt = (node: SimulatedNode, volumeId: string): string =>
    node.mounts.get(`/target/${volumeId}`) ?? "none";

  /** Makes one call after the other until the process dies. */
  async function runAll(
    node: SimulatedNode,
    keeper: RunningKeeper,
    operations: readonly Operation[],
  ): Promise<ReadonlyMap<string, Known>> {
    const known = new Map<string, Known>();
    const dead = node.death.then(() => "no answer" as const);
    for (const { volumeId, act } of operations) {
      node.before = (call) => {
        if (act === "mount in vain" && call === `publish ${volumeId}`) throw new Error("in vain");
      };
      const was = known.get(volumeId)?.state ?? "not mounted";
      const request = requestFor(volumeId, {
        connectors: act === "mount otherwise" ? "ghcr" : "harbor",
      });
      const call = act === "unmount" ? keeper.unpublish(request) : keeper.publish(request);
      const outcome = call.then(
        () => (act === "unmount" ? "not mounted" : "mounted"),
        // What fails for a mounted volume leaves it, unless it was to be replaced: then both have failed.
        () => (node.mounts.has(request.targetPath) ? was : "not mounted"),
      );
      const state = await Promise.race([outcome, dead]);
      known.set(volumeId, { state, token: tokenAt(node, volumeId) });
      if (state === "no answer") break;
    }
    return known;
  }

  /** What is left of a volume by the next process, where the first dies at its nth effect on the world. */
  async function left(nth: number, ask: "mount" | "unmount"): Promise<string> {
    const folder = makeTempFolder("killed");
    const node = simulatedNode(folder.path);
    const first = await node.start();
    if (ask === "unmount") await first.publish(requestFor("a"));
    node.life = nth;
    const call =
      ask === "mount" ? first.publish(requestFor("a")) : first.unpublish(requestFor("a"));
    await Promise.race([call, node.death]);
    node.life = Number.POSITIVE_INFINITY;
    const second = await node.start();
    const settled = node.calls.length;
    const hasRecord = (await readdir(folder.path)).length > 0;
    await second.tick();
    if (hasRecord) await eventually(() => node.calls.length > settled);
    await second.stop();
    const files = await readdir(folder.path);
    await folder.stop();
    return `${node.mounts.has("/target/a") ? "mounted" : "gone"}, ${files.length} records`;
  }

  it("are gone where a mount was cut short before it was done", async () => {
    const outcomes = await Promise.all([1, 2, 3, 4, 5, 6, 7].map((nth) => left(nth, "mount")));
    const gone = "gone, 0 records";
    const mounted = "mounted, 1 records";
    expect(outcomes).to.deep.equal([gone, gone, gone, gone, gone, mounted, mounted]);
  });

  it("are gone where an unmount was cut short after it was begun", async () => {
    const outcomes = await Promise.all([1, 2, 3, 4, 5, 6, 7].map((nth) => left(nth, "unmount")));
    const gone = "gone, 0 records";
    expect(outcomes).to.deep.equal(["mounted, 1 records", gone, gone, gone, gone, gone, gone]);
  });

  it("are those that somebody counts on, and no others, whenever that happens", async () => {
    const outcomes = new Set<string>();
    const operations = fc.array(operation, { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(operations, fc.integer({ min: 1, max: 40 }), async (planned, life) => {
        const folder = makeTempFolder("killed");
        const node = simulatedNode(folder.path);
        const first = await node.start();
        node.life = life;
        const known = await runAll(node, first, planned);

        node.life = Number.POSITIVE_INFINITY;
        node.before = () => {};
        const second = await node.start();
        await second.tick();
        for (const [volumeId, { state, token }] of known) {
          const isMounted = (): boolean => node.mounts.has(`/target/${volumeId}`);
          await eventually(async () => {
            const record = await readFile(join(folder.path, `${volumeId}.json`), "utf8").catch(
              () => undefined,
            );
            return isMounted() ? record?.includes('"inDoubt": false') === true : !record;
          });
          if (state !== "no answer") {
            expect(isMounted(), volumeId).to.equal(state === "mounted");
            const held = await second.verify(token);
            expect(held.ok, "the token that a tool holds").to.equal(state === "mounted");
          }
          const present = await second.verify(tokenAt(node, volumeId));
          expect(present.ok, "the token that is in the volume").to.equal(isMounted());
          outcomes.add(`${state}, then ${isMounted()}`);
        }
        await second.stop();
        await folder.stop();
      }),
      { numRuns: 100 },
    );
    expect([...outcomes].sort()).to.deep.equal([
      "mounted, then true",
      "no answer, then false",
      "no answer, then true",
      "not mounted, then false",
    ]);
  }).timeout(60_000);
});

describe("volumeIdOf(): the id of a volume in standalone mode", () => {
  it("follows from the target path alone, however that is written", () => {
    const id = volumeIdOf("/run/connectors/a");
    expect(isVolumeId(id)).to.equal(true);
    expect(volumeIdOf("/run//connectors/./b/../a/")).to.equal(id);
    expect(volumeIdOf("/run/connectors/b")).not.to.equal(id);
  });

  it("needs an absolute path", () => {
    expect(() => volumeIdOf("connectors/a")).to.throw(TypeError, "absolute");
  });
});
