/**
 * The lines of a stream of UTF-8, without their ends.
 * @throws RangeError for a line longer than so many bytes
 */
export async function* linesOf(
  stream: AsyncIterable<Uint8Array>,
  longest: number,
): AsyncGenerator<string> {
  let pieces: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      pieces.push(chunk.subarray(start, end));
      yield Buffer.concat(pieces).toString("utf8");
      pieces = [];
      length = 0;
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    length += rest.length;
    if (length > longest) throw new RangeError(`a line longer than ${longest} bytes`);
    pieces.push(rest);
  }
  if (length > 0) yield Buffer.concat(pieces).toString("utf8");
}
