import { readFileSync } from "node:fs";
import { expect } from "chai";
import { version } from "../src/version.ts";

describe("the version", () => {
  it("is the package's", () => {
    const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
    expect(JSON.parse(text).version).to.equal(version);
  });
});
