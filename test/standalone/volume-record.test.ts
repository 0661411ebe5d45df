import { expect } from "chai";
import { isVolumeId, volumeIdOf } from "../../src/standalone/volume-record.ts";

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
