import { expect } from "chai";
import { parseRetryAfter } from "../../src/upstream/retry-after.ts";

const now = Date.parse("2026-03-01T12:00:00Z");

describe("retryAfter()", () => {
  for (const [text, wait] of [
    ["0", 0],
    ["7", 7000],
    ["3600", 3_600_000],
    ["Sun, 01 Mar 2026 12:00:05 GMT", 5000],
    ["Sun, 01 Mar 2026 11:59:00 GMT", 0],
    ["", undefined],
    ["-1", undefined],
    ["1.5", undefined],
    ["soon", undefined],
    ["Later, perhaps", undefined],
    ["1e3", undefined],
    ["99999999999999999999", undefined],
    ["2026-03-01", undefined],
  ] as const) {
    it(`makes ${wait} of ${JSON.stringify(text)}`, () => {
      expect(parseRetryAfter(text, now)).to.equal(wait);
    });
  }

  it("makes nothing of no header, or of several", () => {
    expect(parseRetryAfter(undefined, now)).to.equal(undefined);
    expect(parseRetryAfter(["1", "2"], now)).to.equal(undefined);
  });
});
